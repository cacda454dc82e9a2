"""A decoder of a few thousand weights that has learnt a sentence, as a loaded checkpoint, and its text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from insight.checkpoints import LoadedCheckpoint
from insight.data.encoding.documents import encode_documents
from insight.data.store import StoreWriter, TokenStore
from insight.data.tokenizers import BaseTokenizer, ByteTokenizer
from insight.models import DecoderConfig, GroupedQueryAttention, SwiGLU
from insight.optimization import Calibration
from insight.optimization.measurement.quality import MeasuredText

TEXT = "It is a truth universally acknowledged, that a single man must be in want of a wife. "
LENGTH = 16


def network_config(**changes: Any) -> DecoderConfig:
    """The shape of the tiny decoder."""
    options: dict[str, Any] = {
        "hidden_size": 32,
        "num_layers": 2,
        "attention": GroupedQueryAttention(num_heads=4, num_key_value_heads=2),
        "feed_forward": SwiGLU(intermediate_size=48),
        "max_sequence_length": 64,
    }
    return DecoderConfig(**(options | changes))


def untrained(**changes: Any) -> LoadedCheckpoint:
    """The tiny decoder with seeded weights, as a checkpoint would give it."""
    tokenizer = ByteTokenizer()
    torch.manual_seed(0)
    config = network_config(**changes)
    network = config.build(tokenizer.vocabulary_size).eval()
    metadata = {"sequence_length": LENGTH, "vocabulary_size": tokenizer.vocabulary_size, "step": 0}
    return LoadedCheckpoint(network, config, tokenizer, metadata)


def trained(num_steps: int = 150) -> LoadedCheckpoint:
    """The tiny decoder after it has learnt ``TEXT``, in a second or two."""
    model = untrained()
    network = model.network.train()
    ids = torch.tensor(model.tokenizer.encode(TEXT * 4))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        starts = torch.randint(len(ids) - LENGTH - 1, (8, 1), generator=generator)
        window = ids[starts + torch.arange(LENGTH + 1)]
        scores = network.logits(network(window[:, :-1]))
        loss = F.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    optimizer.zero_grad()
    return model


def some_ids(num_rows: int = 2, length: int = LENGTH) -> torch.Tensor:
    """Seeded token ids."""
    return torch.randint(256, (num_rows, length), generator=torch.Generator().manual_seed(1))


def scores(model: LoadedCheckpoint, ids: torch.Tensor) -> torch.Tensor:
    """What the model says to ``ids``."""
    with torch.inference_mode():
        return model.network.logits(model.network(ids))


def calibration(tokenizer: BaseTokenizer) -> Calibration:
    """Windows of ``TEXT``."""
    ids = np.array(tokenizer.encode(TEXT * 4))
    windows = ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)
    return Calibration(windows, tokenizer.fingerprint())


def store_of(text: str, folder: Path, tokenizer: BaseTokenizer) -> TokenStore:
    """``text`` as a token store of one document."""
    folder.mkdir(exist_ok=True)
    writer = StoreWriter(folder, tokenizer)
    encode_documents([text], writer)
    writer.close({"files": ["text"]})
    return TokenStore(folder)


def measured_text(folder: Path, tokenizer: BaseTokenizer) -> MeasuredText:
    """``TEXT`` as what candidates are measured on."""
    return MeasuredText.of(store_of(TEXT * 8, folder, tokenizer), tokenizer, LENGTH)
