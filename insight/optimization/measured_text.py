"""Windows of text that candidates are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.store import TokenStore
from insight.data.tokenizers import BaseTokenizer
from insight.models import Decoder
from insight.optimization.measurement import Quality, measure_quality


@dataclass(frozen=True, eq=False)
class MeasuredText:
    """Validation text, cut into windows as a run's validation cuts it.

    Attributes:
        store: Its tokens.
        bytes_per_token: Of the tokenizer.
        sequence_length: Tokens a window.
    """

    store: TokenStore
    bytes_per_token: npt.NDArray[np.int64]
    sequence_length: int

    @classmethod
    def of(cls, store: TokenStore, tokenizer: BaseTokenizer, sequence_length: int) -> MeasuredText:
        """The text of a store, encoded by ``tokenizer``."""
        return cls(store, tokenizer.token_byte_lengths(), sequence_length)

    @property
    def num_windows(self) -> int:
        """Windows of the whole text."""
        return -(-self.store.num_tokens // self.sequence_length)

    def tokens(self, num_windows: int) -> npt.NDArray[Any]:
        """Windows spread evenly over the text, one after the other; all of it if there are no more.

        Where two that were no neighbours meet, the first token is predicted from another place's last one.
        That is the same for every candidate, and one token in ``sequence_length``.
        """
        if num_windows >= self.num_windows:
            return self.store.tokens(0, self.store.num_tokens)
        whole = self.store.num_tokens // self.sequence_length
        starts = np.unique(np.linspace(0, whole - 1, num_windows).astype(np.int64)) * self.sequence_length
        return self.store.windows(starts, self.sequence_length).reshape(-1)

    def measure(self, network: Decoder, num_windows: int, batch_size: int) -> Quality:
        """The quality of ``network`` on :meth:`tokens`."""
        return measure_quality(
            network,
            self.tokens(num_windows),
            self.bytes_per_token,
            self.sequence_length,
            batch_size,
            end_of_text_id=self.store.end_of_text_id,
        )
