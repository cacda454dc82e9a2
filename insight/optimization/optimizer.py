"""The contract of everything that makes a model smaller or faster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from insight.checkpoints import LoadedCheckpoint
from insight.optimization.calibration import Calibration
from insight.optimization.config import QuantizationConfig
from insight.optimization.report import OptimizationReport


@dataclass(frozen=True)
class Incompatibility:
    """Why something cannot be done to a model.

    Args:
        reason: What stands in the way, naming the module, tensor or tool.
        remedy: What the user can do about it.
    """

    reason: str
    remedy: str


@dataclass(frozen=True)
class OptimizedModel:
    """A model that an optimizer made.

    Attributes:
        checkpoint: The model as it runs, compiled if that was asked for. Its metadata says under
            ``"quantization"`` what was done, so that nothing is quantized twice.
        config: How it was made.
        report: What was changed and what was not.
    """

    checkpoint: LoadedCheckpoint
    config: QuantizationConfig
    report: OptimizationReport


class ModelOptimizer(ABC):
    """Makes a smaller or faster model out of a trained one."""

    @abstractmethod
    def check(self, model: LoadedCheckpoint, target: str | None = None) -> list[Incompatibility]:
        """Everything that stands in the way, found in well under a second and before any work.

        Args:
            model: To optimize.
            target: Where the result is to run; ``None`` = where the model is now.

        Raises:
            ConfigError: There is no such target.
        """

    @abstractmethod
    def apply(self, model: LoadedCheckpoint, calibration: Calibration | None = None) -> OptimizedModel:
        """Make the optimized model; the one passed in is not changed and shares no weight with it.

        Args:
            model: To optimize.
            calibration: Training text, for methods that need some.

        Raises:
            ConfigError: :meth:`check` finds something, or the calibration is missing or unfit.
        """
