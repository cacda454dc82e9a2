"""Bits per byte over a whole text: one evaluator for every contender."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.peers.windows import Tokens


@torch.no_grad()
def bits_per_byte(
    logits_function: Callable[[torch.Tensor], torch.Tensor],
    stream: Tokens,
    num_bytes: int,
    sequence_length: int,
    batch_size: int = 16,
) -> float:
    """Cross-entropy of every token of ``stream`` but the first, in bits, divided by the bytes of the text.

    The stream (end-of-text, document, end-of-text, ...) is cut into windows without overlap, so every token
    is predicted exactly once, from the tokens before it in its window.

    Args:
        logits_function: ``(batch, sequence)`` int64 ids → ``(batch, sequence, vocabulary)`` logits; the
            caller puts its network into evaluation mode.
        stream: ``(num_targets + 1,)`` token ids.
        num_bytes: UTF-8 bytes of the text of the stream.
        sequence_length: Tokens per window; the last window may be shorter.
        batch_size: Windows per forward pass; the result does not depend on it.
    """
    ids = torch.from_numpy(np.asarray(stream, dtype=np.int64))
    inputs, targets = ids[:-1], ids[1:]
    num_full = len(targets) // sequence_length
    split = num_full * sequence_length
    full = (ids.view(num_full, sequence_length) for ids in (inputs[:split], targets[:split]))
    batches = list(zip(*(torch.split(windows, batch_size) for windows in full), strict=True))
    if split < len(targets):
        batches.append((inputs[split:].unsqueeze(0), targets[split:].unsqueeze(0)))
    total = 0.0
    for input_ids, target_ids in batches:
        logits = logits_function(input_ids).float()
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), target_ids.flatten(), reduction="none"
        )
        total += losses.double().sum().item()
    return total / math.log(2) / num_bytes
