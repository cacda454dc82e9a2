"""Whether another library computes the same with the files of an export: likelihoods and greedy texts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from insight.checkpoints import LoadedCheckpoint
from insight.data.store import TokenStore
from insight.interchange.transformers_network import TransformersNetwork
from insight.models import Decoder
from insight.optimization.measurement import MeasuredText, compare_quality
from insight.runtime.statistics import Interval

NUM_PROMPTS = 20
_PROMPT_TOKENS, _NEW_TOKENS = 32, 32
_NUM_WINDOWS, _ROWS = 32, 4
# Rounding moves the bits per byte of a trained network far less, and a mixed-up tensor far more.
_LARGEST_SHARE = 0.01
# Rounding parts texts where two tokens are nearly as likely; other scores part nearly all at once.
_FEWEST_EQUAL = 0.25


@dataclass(frozen=True)
class Verification:
    """The comparison of Insight with another library on the same tokens.

    Attributes:
        runtime: The library and its class.
        text: The text, e.g. ``"test"``.
        num_prompts: Number of prompts.
        num_equal_texts: Prompts whose greedy continuations are equal.
        num_tokens: Tokens of all continuations.
        num_equal_tokens: Tokens before the first difference of each pair of continuations.
        bits_per_byte: Bits per byte of Insight on the text.
        other_bits_per_byte: Bits per byte of the other library on the text.
        difference: Their difference, the other library minus Insight, with a paired 95% interval.
    """

    runtime: str
    text: str
    num_prompts: int
    num_equal_texts: int
    num_tokens: int
    num_equal_tokens: int
    bits_per_byte: float
    other_bits_per_byte: float
    difference: Interval

    @property
    def agrees(self) -> bool:
        """Whether both compute the same, up to the rounding of the numbers that were written."""
        is_as_likely = abs(self.difference.value) <= _LARGEST_SHARE * self.bits_per_byte
        return is_as_likely and self.num_equal_tokens >= _FEWEST_EQUAL * self.num_tokens

    def summary(self) -> str:
        """The figures in one line."""
        ends = f"[{self.difference.low:+.2g}, {self.difference.high:+.2g}]"
        return (
            f"{self.num_equal_texts} of {self.num_prompts} greedy texts equal "
            f"({self.num_equal_tokens} of {self.num_tokens} tokens), {self.other_bits_per_byte:.4f} bits per "
            f"byte, Insight {self.bits_per_byte:.4f}, difference {self.difference.value:+.2g} {ends}"
        )

    def to_record(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return dataclasses.asdict(self) | {"agrees": self.agrees}


def verify(loaded: LoadedCheckpoint, folder: Path, store: TokenStore, split: str) -> Verification:
    """Compare a model with its export in ``folder`` on the text of ``store``.

    Raises:
        CheckpointError: The other library cannot load the folder.
    """
    other = TransformersNetwork(folder)
    ours, context = loaded.network, loaded.network_config.max_sequence_length
    length = min(loaded.metadata["sequence_length"], context)
    other.config = loaded.network_config  # the measurement reads the length of the context in it
    text = MeasuredText.of(store, loaded.tokenizer, length)
    own, foreign = (text.measure(cast(Decoder, each), _NUM_WINDOWS, _ROWS) for each in (ours, other))
    prompts = _prompts(store, min(_PROMPT_TOKENS, max(1, context // 2)))
    num_new = min(_NEW_TOKENS, context - prompts.shape[1])
    written = [_continue_greedily(ours, prompts, num_new), other.continue_greedily(prompts, num_new)]
    same = (written[0] == written[1]).cumprod(dim=1)
    return Verification(
        runtime=f"transformers {_version()}, {other.name}",
        text=split,
        num_prompts=len(prompts),
        num_equal_texts=int(same[:, -1].sum()) if num_new else len(prompts),
        num_tokens=same.numel(),
        num_equal_tokens=int(same.sum()),
        bits_per_byte=own.bits_per_byte,
        other_bits_per_byte=foreign.bits_per_byte,
        difference=compare_quality(own, foreign),
    )


def _version() -> str:
    import transformers

    return str(transformers.__version__)


def _prompts(store: TokenStore, length: int) -> torch.Tensor:
    """Stretches of the text that are spread evenly over it, int64 ``(prompts, length)``."""
    length = min(length, store.num_tokens)
    starts = np.unique(np.linspace(0, store.num_tokens - length, NUM_PROMPTS).astype(np.int64))
    rows = [store.tokens(int(start), int(start) + length) for start in starts]
    return torch.from_numpy(np.stack(rows).astype(np.int64))


@torch.inference_mode()
def _continue_greedily(network: Decoder, prompts: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """The most likely tokens after each row, ``(batch, num_tokens)``, with a cache."""
    cache = network.make_cache(len(prompts), prompts.shape[1] + num_tokens)
    chosen, new = prompts, []
    for _ in range(num_tokens):
        chosen = network.logits(network(chosen, cache=cache)[:, -1:]).argmax(dim=-1)
        new.append(chosen)
    return torch.cat(new, dim=1) if new else prompts[:, :0]
