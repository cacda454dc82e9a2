"""Learning-rate schedules: pure functions of the step and the planned number of steps."""

from __future__ import annotations

import dataclasses
import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.messages import say
from insight.runtime.numbers import require_number

Unit = Literal["steps", "tokens", "share"]
_UNITS: dict[str, Unit] = {"%": "share", "step": "steps", "token": "tokens"}

_TEXT = re.compile(r"(?P<number>[\d_,]*\.?\d+)\s*(?P<factor>[kMGBT]?)\s*(?P<unit>%|steps?|tokens?|)")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_EXAMPLES = "use for example 100, '100 steps', '2M tokens' or '5%' (of the run)"


@dataclass(frozen=True)
class Length:
    """The length of a phase: a number of steps or tokens, or a share of the run from 0 to 1."""

    value: float
    unit: Unit

    def steps(self, num_steps: int) -> float:
        """The length in a run of ``num_steps`` optimizer steps; that of a share may be fractional."""
        if self.unit == "tokens":
            problem = f"a length of {self.value:,.0f} tokens: the number of tokens a step is not known here"
            raise ConfigError(problem, "ask schedule.in_steps(num_tokens_per_step) first")
        return self.value * num_steps if self.unit == "share" else self.value


def parse_length(name: str, given: float | str, bare_unit: Unit) -> Length:
    """Parse a number in ``bare_unit``, or a text such as ``"100 steps"``, ``"2M tokens"`` or ``"5%"``.

    Raises:
        ConfigError: The value of the option ``name`` is not a length, or negative, a share above 1, or not a
            whole number of steps.
    """
    problem, value, unit = "", 0.0, bare_unit
    match = _TEXT.fullmatch(given.strip()) if isinstance(given, str) else None
    if match is not None:
        # Decimal, since 1.1 times a million is not a whole number in binary.
        number = Decimal(match["number"].replace(",", "").replace("_", "")) * _FACTORS[match["factor"]]
        unit = _UNITS.get(match["unit"].removesuffix("s"), bare_unit)
        value = float(number / 100 if match["unit"] == "%" else number)
    elif isinstance(given, (str, bool)):
        problem = "is no length"
    else:
        value = float(given)
    if not 0 <= value < math.inf:
        problem = "must be at least 0"
    elif unit == "share" and value > 1:
        problem = "must lie between 0 and 1, a share of the run"
    elif unit != "share" and value != int(value):
        problem = f"must be a whole number of {unit}"
    if problem:
        raise ConfigError(problem, _EXAMPLES, option=name, value=given)
    return Length(value, unit)


Schedule = TypeVar("Schedule", bound="ScheduleConfig")


@dataclass(frozen=True)
class ScheduleConfig(Component):
    """The factor of the learning rate at each step. Your own schedule needs only :meth:`multiplier`."""

    # Options that are the length of a phase, with the unit of a number without one.
    _lengths: ClassVar[dict[str, Unit]] = {}

    def __post_init__(self) -> None:
        self._parsed()
        for name in ("initial_share", "final_share"):
            if hasattr(self, name):
                require_number(name, getattr(self, name), 0.5, at_least=0, at_most=1)

    @abstractmethod
    def multiplier(self, step: int, num_steps: int) -> float:
        """The factor of optimizer step ``step`` (0-based) in a run of ``num_steps`` steps."""

    def settled_steps(self, num_steps: int) -> int:
        """Number of first steps whose factors do not depend on the length of the run, planned as given."""
        return 0

    def in_steps(self: Schedule, num_tokens_per_step: int) -> Schedule:
        """Convert lengths in tokens to steps, rounded up, which count all micro-batches and processes."""
        lengths = self._parsed().items()
        tokens = {name: length.value for name, length in lengths if length.unit == "tokens"}
        changed: Any = {name: f"{math.ceil(n / num_tokens_per_step)} steps" for name, n in tokens.items()}
        return dataclasses.replace(self, **changed) if changed else self

    def check_fits(self, num_steps: int) -> None:
        """Refuse phases that are longer than the run; default lengths and those in tokens are not checked.

        Raises:
            ConfigError: The phases do not fit into ``num_steps`` steps.
        """
        lengths = self._parsed().items()
        steps = {name: length.steps(num_steps) for name, length in lengths if length.unit != "tokens"}
        if sum(steps.values()) > num_steps:
            given = " and ".join(f"{name}={getattr(self, name)} ({steps[name]:g} steps)" for name in steps)
            problem = f"model.schedule: {given} do not fit into a run of {num_steps:,} steps"
            raise ConfigError(problem, "shorten them or train longer")

    def _length(self, name: str) -> Length:
        return parse_length(name, getattr(self, name), self._lengths[name])

    def _parsed(self) -> dict[str, Length]:
        """The lengths that are given; this also refuses wrong ones."""
        return {name: self._length(name) for name in self._lengths if getattr(self, name) is not None}


@dataclass(frozen=True)
class _Warmup(ScheduleConfig):
    """The base of schedules that begin with a linear warm-up."""

    warmup_steps: int | str | None = None

    _lengths: ClassVar[dict[str, Unit]] = {"warmup_steps": "steps"}
    _usual_warmup_steps: ClassVar[int] = 10

    def __post_init__(self) -> None:
        if self.warmup_steps == "None":  # `null` on a command line becomes this text
            object.__setattr__(self, "warmup_steps", None)
        super().__post_init__()

    def settled_steps(self, num_steps: int) -> int:
        is_share = self.warmup_steps is not None and self._length("warmup_steps").unit == "share"
        return 0 if is_share else self._settled(num_steps)

    def _settled(self, num_steps: int) -> int:
        """:meth:`settled_steps` if the warm-up does not depend on the length of the run."""
        return round(self._warmup_length(num_steps))

    def _warmup_length(self, num_steps: int) -> float:
        if self.warmup_steps is None:
            return self._usual_warmup_steps
        return self._length("warmup_steps").steps(num_steps)

    def _warmup(self, step: int, num_steps: int) -> float:
        return min(1.0, (step + 1) / (self._warmup_length(num_steps) + 1))


@dataclass(frozen=True)
class Constant(_Warmup):
    """A constant learning rate, after a linear warm-up.

    Args:
        warmup_steps: Length of the warm-up, in which the rate grows from near 0: a number of steps, or a text
            such as ``2M tokens`` or ``5%`` (of the run).
    """

    warmup_steps: int | str | None = 0

    def multiplier(self, step: int, num_steps: int) -> float:
        return self._warmup(step, num_steps)

    def _settled(self, num_steps: int) -> int:
        return num_steps


@dataclass(frozen=True)
class _WarmupDecay(_Warmup):
    """Linear warm-up, then a fall over the rest of the run."""

    final_share: float = 0.0

    def multiplier(self, step: int, num_steps: int) -> float:
        warmup_steps = self._warmup_length(num_steps)
        if step < warmup_steps:
            return self._warmup(step, num_steps)
        return self._fall(min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps)))

    @abstractmethod
    def _fall(self, progress: float) -> float:
        """The factor at a share ``progress`` of the fall."""


@dataclass(frozen=True)
class WarmupCosine(_WarmupDecay):
    """Linear warm-up, then half a cosine down (Loshchilov and Hutter 2017, arXiv 1608.03983).

    Args:
        warmup_steps: Length of the warm-up, in which the rate grows from near 0: a number of steps, or a text
            such as ``2M tokens`` or ``5%`` (of the run); null for 10 steps, however short the run is.
        final_share: Factor at the last step.
    """

    def _fall(self, progress: float) -> float:
        return _half_cosine(1.0, self.final_share, progress)


@dataclass(frozen=True)
class WarmupLinear(_WarmupDecay):
    """Linear warm-up, then a straight line down (Devlin et al. 2018, arXiv 1810.04805).

    Args:
        warmup_steps: Length of the warm-up, in which the rate grows from near 0: a number of steps, or a text
            such as ``2M tokens`` or ``5%`` (of the run); null for 10 steps, however short the run is.
        final_share: Factor at the last step.
    """

    def _fall(self, progress: float) -> float:
        return self.final_share + (1 - self.final_share) * (1 - progress)


@dataclass(frozen=True)
class InverseSquareRoot(_Warmup):
    """Linear warm-up, then a fall with the inverse square root of the step (arXiv 1706.03762).

    It does not depend on the length of the run, which can be extended at any time.

    Args:
        warmup_steps: Length of the warm-up, in which the rate grows from near 0 and after which it falls: a
            number of steps, or a text such as ``2M tokens`` or ``5%`` (of the run); null for 100 steps,
            however short the run is.
    """

    _usual_warmup_steps: ClassVar[int] = 100

    def multiplier(self, step: int, num_steps: int) -> float:
        falling = math.sqrt((self._warmup_length(num_steps) + 1) / (step + 1))
        return min(self._warmup(step, num_steps), falling)

    def _settled(self, num_steps: int) -> int:
        return num_steps


@dataclass(frozen=True)
class OneCycle(ScheduleConfig):
    """Half a cosine up, half a cosine down to almost nothing (Smith and Topin 2017, arXiv 1708.07120).

    Args:
        rise_share: Length of the rise: a share of the run, or a text: ``30%``, ``100 steps`` or
            ``2M tokens``.
        initial_share: Factor at the first step.
        final_share: Factor at the last step.
    """

    rise_share: float | str = 0.3
    initial_share: float = 0.04
    final_share: float = 4e-6

    _lengths: ClassVar[dict[str, Unit]] = {"rise_share": "share"}

    def multiplier(self, step: int, num_steps: int) -> float:
        top, last = self._length("rise_share").steps(num_steps) - 1, num_steps - 1
        if step <= top:
            return _half_cosine(self.initial_share, 1.0, step / top if top > 0 else 1.0)
        return _half_cosine(1.0, self.final_share, min(1.0, (step - top) / max(1.0, last - top)))


@dataclass(frozen=True)
class WarmupStableDecay(_Warmup):
    """Linear warm-up, a stable phase, then a decay over the last share (Hu et al. 2024, arXiv 2404.06395).

    The rate does not depend on the length of the run until the decay begins, so a run can be planned or
    extended while it is in the stable phase.

    Args:
        warmup_steps: Length of the warm-up, in which the rate grows from near 0: a number of steps, or a text
            such as ``2M tokens`` or ``5%`` (of the run); null for 10 steps, however short the run is.
        decay_share: Length of the decay at the end: a share of the run, or a text: ``20%``, ``1000 steps`` or
            ``2M tokens``.
        final_share: Factor at the end.
        shape: Shape of the decay: ``linear``, or ``sqrt`` (1 minus the square root of the progress, which
            falls fast at first; Hägele et al. 2024, arXiv 2405.18392).
    """

    decay_share: float | str = 0.5
    final_share: float = 0.0
    shape: str = "linear"

    _lengths: ClassVar[dict[str, Unit]] = {"warmup_steps": "steps", "decay_share": "share"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape not in ("linear", "sqrt"):
            problem, remedy = "unknown shape of the decay", "use linear or sqrt"
            raise ConfigError(problem, remedy, option="shape", value=self.shape)

    def multiplier(self, step: int, num_steps: int) -> float:
        decay_steps = self._length("decay_share").steps(num_steps)
        progress = (step - (num_steps - decay_steps)) / decay_steps if decay_steps else 0.0
        progress = min(1.0, max(0.0, progress))
        if self.shape == "sqrt":
            progress = math.sqrt(progress)
        return self._warmup(step, num_steps) * (self.final_share + (1 - self.final_share) * (1 - progress))

    def _settled(self, num_steps: int) -> int:
        return max(0, math.floor(num_steps - self._length("decay_share").steps(num_steps)))


def _half_cosine(start: float, stop: float, progress: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * progress)) / 2


def say_new_length(schedule: ScheduleConfig, step: int, planned_before: int | None, planned_now: int) -> None:
    """Report it if the ``step`` steps already taken would have had other rates under the new plan."""
    if planned_before is None or planned_before == planned_now:
        return
    settled = schedule.settled_steps(min(planned_before, planned_now))
    if step <= settled:
        return
    before, now = (schedule.multiplier(step, planned) for planned in (planned_before, planned_now))
    say(
        f"the run had {planned_before:,} planned steps and has {planned_now:,} now, but its learning rate "
        f"depends on that from step {settled:,} on: it goes on at {now:.0%} of the full rate, not "
        f"{before:.0%}; a checkpoint up to step {settled:,} goes on as if {planned_now:,} had always been "
        f"planned"
    )


LOWEST, HIGHEST = 0.01, 100.0
"""Ends of a sweep, as multiples of the configured rates."""
# The window for slopes and means, as a share of the sweep.
_WINDOW_SHARE = 0.1
# The sweep has diverged if its loss is more than this many times the first one.
_DIVERGED = 1.2


@dataclass(frozen=True)
class ExponentialSweep(ScheduleConfig):
    """The rate grows by the same factor at each step (Smith 2015, arXiv 1506.01186, section 3.3).

    Args:
        lowest: Factor of the first step.
        highest: Factor of the last step.
    """

    lowest: float = LOWEST
    highest: float = HIGHEST

    def multiplier(self, step: int, num_steps: int) -> float:
        return float(self.lowest * (self.highest / self.lowest) ** (step / max(1, num_steps - 1)))


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep, in multiples of the configured learning rates; ``None`` for no such rate."""

    steepest: float | None  # the loss fell fastest: the one to use
    lowest_loss: float | None  # higher rates are too high
    diverged: float | None


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the newest loss is NaN, or a fifth above the first."""
    return not losses[-1] <= _DIVERGED * losses[0]


def judge_sweep(multipliers: Sequence[float], losses: Sequence[float]) -> SweepResult:
    """Judge a sweep by straight lines through a tenth of it, against the logarithm of the rate."""
    diverged = float(multipliers[-1]) if has_diverged(losses) else None
    usable = np.array(losses[: len(losses) - 1] if diverged is not None else losses)
    reach = max(1, round(_WINDOW_SHARE * len(multipliers) / 2))
    middles = np.arange(reach, len(usable) - reach)
    if not len(middles):
        return SweepResult(None, None, diverged)
    offsets = np.arange(-reach, reach + 1)
    windows = usable[middles[:, None] + offsets]
    slopes = windows @ offsets / (offsets**2).sum()
    bottom = int(np.argmin(windows.mean(axis=1)))
    steepest = int(np.argmin(slopes[: bottom + 1]))
    falls = bool(slopes[steepest] < 0)
    return SweepResult(
        float(multipliers[middles[steepest]]) if falls else None,
        float(multipliers[middles[bottom]]) if falls else None,
        diverged,
    )
