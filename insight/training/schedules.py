"""Learning-rate schedules: pure functions of the step and the planned number of steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class ScheduleConfig(Component):
    """What the learning rate is multiplied with at each step."""

    @abstractmethod
    def multiplier(self, step: int, num_steps: int) -> float:
        """The factor of optimizer step ``step`` (0-based) in a run of ``num_steps`` steps."""


@dataclass(frozen=True)
class Constant(ScheduleConfig):
    """The same learning rate throughout, after a linear warm-up.

    Args:
        warmup_steps: Steps over which the rate grows from near 0.
    """

    warmup_steps: int = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)

    def multiplier(self, step: int, num_steps: int) -> float:
        return _warmup(step, self.warmup_steps)


@dataclass(frozen=True)
class _WarmupDecay(ScheduleConfig):
    """Linear warm-up, then a fall over all the rest of the run."""

    warmup_steps: int = 10
    final_share: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)
        _check_share("final_share", self.final_share)

    def multiplier(self, step: int, num_steps: int) -> float:
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        return self._fall(min(1.0, (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps)))

    @abstractmethod
    def _fall(self, progress: float) -> float:
        """The factor when a share ``progress`` of the fall is over."""


@dataclass(frozen=True)
class WarmupCosine(_WarmupDecay):
    """Linear warm-up, then half a cosine down (Loshchilov and Hutter 2017, arXiv 1608.03983).

    Args:
        warmup_steps: Steps over which the rate grows from near 0.
        final_share: Factor at the last step.
    """

    def _fall(self, progress: float) -> float:
        return _half_cosine(1.0, self.final_share, progress)


@dataclass(frozen=True)
class WarmupLinear(_WarmupDecay):
    """Linear warm-up, then a straight line down (Devlin et al. 2018, arXiv 1810.04805).

    Args:
        warmup_steps: Steps over which the rate grows from near 0.
        final_share: Factor at the last step.
    """

    def _fall(self, progress: float) -> float:
        return self.final_share + (1 - self.final_share) * (1 - progress)


@dataclass(frozen=True)
class InverseSquareRoot(ScheduleConfig):
    """Linear warm-up, then a fall with the root of the steps (Vaswani et al. 2017, arXiv 1706.03762).

    It does not depend on the length of the run, which can be extended at any time.

    Args:
        warmup_steps: Steps over which the rate grows; the fall is counted from there.
    """

    warmup_steps: int = 100

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)

    def multiplier(self, step: int, num_steps: int) -> float:
        return min(_warmup(step, self.warmup_steps), math.sqrt((self.warmup_steps + 1) / (step + 1)))


@dataclass(frozen=True)
class OneCycle(ScheduleConfig):
    """Half a cosine up, half a cosine down to almost nothing (Smith and Topin 2017, arXiv 1708.07120).

    Args:
        rise_share: Share of the run over which the rate rises.
        initial_share: Factor at the first step.
        final_share: Factor at the last step.
    """

    rise_share: float = 0.3
    initial_share: float = 0.04
    final_share: float = 4e-6

    def __post_init__(self) -> None:
        for name in ("rise_share", "initial_share", "final_share"):
            _check_share(name, getattr(self, name))

    def multiplier(self, step: int, num_steps: int) -> float:
        top, last = self.rise_share * num_steps - 1, num_steps - 1
        if step <= top:
            return _half_cosine(self.initial_share, 1.0, step / top if top > 0 else 1.0)
        return _half_cosine(1.0, self.final_share, min(1.0, (step - top) / max(1.0, last - top)))


@dataclass(frozen=True)
class WarmupStableDecay(ScheduleConfig):
    """Linear warm-up, a stable phase, then a decay over the last share (Hu et al. 2024, arXiv 2404.06395).

    The rate does not depend on the length of the run until the decay begins, so a run can be planned or
    extended while it is in the stable phase.

    Args:
        warmup_steps: Steps over which the rate grows from near 0.
        decay_share: Share of the run over which the rate falls.
        final_share: Factor at the end.
        shape: How it falls: ``linear``, or ``sqrt`` (1 minus the square root of the progress: fast first;
            Hägele et al. 2024, arXiv 2405.18392).
    """

    warmup_steps: int = 10
    decay_share: float = 0.5
    final_share: float = 0.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)
        _check_share("decay_share", self.decay_share)
        _check_share("final_share", self.final_share)
        if self.shape not in ("linear", "sqrt"):
            raise ConfigError(f"shape={self.shape!r}: unknown shape of the decay", "use linear or sqrt")

    def multiplier(self, step: int, num_steps: int) -> float:
        decay_steps = self.decay_share * num_steps
        progress = (step - (num_steps - decay_steps)) / decay_steps if decay_steps else 0.0
        progress = min(1.0, max(0.0, progress))
        if self.shape == "sqrt":
            progress = math.sqrt(progress)
        return _warmup(step, self.warmup_steps) * (self.final_share + (1 - self.final_share) * (1 - progress))


def _half_cosine(start: float, stop: float, progress: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * progress)) / 2


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))


def _check_warmup(warmup_steps: int) -> None:
    if warmup_steps < 0:
        raise ConfigError(f"warmup_steps={warmup_steps}: must be at least 0", "use e.g. 10")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}={value}: must lie between 0 and 1", "use e.g. 0.5")
