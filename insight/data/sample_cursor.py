"""Where training stands: one number of samples, and what it counts in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xxhash

from insight.runtime.errors import CheckpointError, ConfigError


class SampleCursor:
    """The number of samples that all processes together have trained on.

    A saved number is taken over only by data in which it means the same: what decides which samples it
    stands between is saved with it.

    Attributes:
        num_consumed: Samples so far.
    """

    def __init__(self) -> None:
        self.num_consumed = 0
        self._restored: dict[str, Any] | None = None

    def advance(self, num_samples: int) -> None:
        """Count samples as done.

        Raises:
            ConfigError: There are none.
        """
        if num_samples < 1:
            raise ConfigError(
                f"num_samples_global={num_samples}: a batch has samples", "pass the global batch size"
            )
        self.num_consumed += num_samples

    def state_dict(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """The number and what it counts in.

        Args:
            identity: What decides which samples a number stands between, plain JSON values.
        """
        return {"num_samples_consumed": self.num_consumed, **_with_fingerprint(identity)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep a saved number until :meth:`restore` knows the data."""
        self._restored = dict(state_dict)

    def restore(self, identity: Mapping[str, Any], batch_size: int = 1) -> None:
        """Take over what was loaded, if anything.

        Args:
            identity: As in :meth:`state_dict`.
            batch_size: Samples of a batch on all processes together.

        Raises:
            CheckpointError: It counts in other data, another order or another batch, or is inside a batch.
        """
        if not self._restored:
            return
        restored, self._restored = self._restored, None
        present = _with_fingerprint(identity)
        if restored.get("fingerprint") != present["fingerprint"]:
            names = [*identity, *(name for name in restored if name not in present)]
            different = [
                name
                for name in names
                if restored.get(name) != present.get(name) and name != "num_samples_consumed"
            ]
            changes = ", ".join(
                f"{name}={present.get(name)} (saved: {restored.get(name)})" for name in different
            )
            raise CheckpointError(
                f"the checkpoint's position is one in other training data: {changes or 'unknown format'}",
                "resume with the data settings of the run (batch_size times processes times accumulation has "
                "to stay), or start from its weights with --init_from",
            )
        num_consumed = int(restored["num_samples_consumed"])
        if num_consumed % batch_size:
            raise CheckpointError(
                f"the checkpoint's position, {num_consumed} samples, is inside a batch of {batch_size}: it "
                "was saved between the batches of one optimizer step",
                "resume with the batch_size and the accumulation of the run",
            )
        self.num_consumed = num_consumed


def text_hash(text: str) -> str:
    """xxh3 (64 bits, hexadecimal)."""
    return str(xxhash.xxh3_64_hexdigest(text.encode("utf-8")))


def _with_fingerprint(identity: Mapping[str, Any]) -> dict[str, Any]:
    parts = dict(identity)
    return {**parts, "fingerprint": text_hash(repr(parts))}
