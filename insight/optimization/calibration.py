"""Training text that activation ranges are taken from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.store import TokenStore
from insight.runtime.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Calibration:
    """Windows of the train split: a range taken from validation text would leak into its measurement.

    Args:
        windows: Token ids ``(num_windows, sequence_length)``.
        tokenizer_fingerprint: Of the tokenizer that made the ids.
    """

    windows: npt.NDArray[Any]
    tokenizer_fingerprint: str

    def __post_init__(self) -> None:
        if self.windows.ndim != 2 or not self.windows.size:
            raise ConfigError(
                f"calibration windows of shape {self.windows.shape}: must be (num_windows, sequence_length)",
                "use Calibration.from_store",
            )

    @classmethod
    def from_store(cls, store: TokenStore, sequence_length: int, num_windows: int = 64) -> Calibration:
        """Windows spread evenly over a store, that of the train split.

        Args:
            store: Training tokens.
            sequence_length: Tokens a window.
            num_windows: Most windows; fewer where the text is short.

        Raises:
            ConfigError: A number is below 1.
            DataError: The text is shorter than one window.
        """
        for name, value in (("sequence_length", sequence_length), ("num_windows", num_windows)):
            if value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1", "use for example 64")
        places = store.num_tokens // sequence_length
        if not places:
            raise DataError(
                f"{store.path}: {store.num_tokens} tokens, fewer than one window of {sequence_length}",
                "use a smaller sequence_length or more text",
            )
        chosen = np.unique(np.linspace(0, places - 1, min(num_windows, places)).astype(np.int64))
        windows = store.windows(chosen * sequence_length, sequence_length)
        return cls(windows, store.manifest.tokenizer_fingerprint)

    def require_tokenizer(self, fingerprint: str) -> None:
        """Refuse text of another tokenizer: the same ids would stand for other text.

        Raises:
            ConfigError: The fingerprints differ.
        """
        if fingerprint != self.tokenizer_fingerprint:
            raise ConfigError(
                f"the calibration text was encoded by another tokenizer ({self.tokenizer_fingerprint[:8]}, "
                f"the model has {fingerprint[:8]})",
                "encode it with the tokenizer of the model",
            )
