"""What an optimization did to a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KeptModule:
    """A module that was left as it is.

    Args:
        name: In ``network.named_modules()``.
        reason: Why.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class OptimizationReport:
    """What was changed and what was not. What that costs and gains is measured, not reported here.

    Args:
        modules_quantized: Names of the modules whose weights were converted.
        modules_kept: The other modules with parameters.
        weight_bytes_before: Bytes of all weights of the model that was passed in.
        weight_bytes_after: Bytes of all weights of the result: integers, scales and zero points.
        notes: What else a reader should know: observers, calibration text, reduced ranges.
    """

    modules_quantized: tuple[str, ...]
    modules_kept: tuple[KeptModule, ...]
    weight_bytes_before: int
    weight_bytes_after: int
    notes: tuple[str, ...] = ()

    @property
    def compression(self) -> float:
        """How many times smaller the weights have become."""
        return self.weight_bytes_before / self.weight_bytes_after
