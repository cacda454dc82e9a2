"""Lengths of time as people and schedulers write them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from insight.runtime.errors import ConfigError
from insight.runtime.run_folder import check_run_name

_CLOCK = re.compile(r"(?:(?:(?P<days>\d+)-)?(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


def duration_in_seconds(option: str, value: float | str) -> float:
    """Seconds of a duration.

    Args:
        option: Where the value comes from, for the message.
        value: A number of seconds, or ``MM:SS``, ``HH:MM:SS`` or ``D-HH:MM:SS`` as SLURM writes it.

    Raises:
        ConfigError: It is neither, or not above 0.
    """
    seconds = _from_text(value) if isinstance(value, str) else float(value)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ConfigError(
            f"{option}={value}: must be a positive time",
            "use seconds, or HH:MM:SS in quotes, for example 3600 or '01:00:00'",
        )
    return seconds


def _from_text(text: str) -> float:
    """``nan`` for what is no duration."""
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        try:
            return float(text)
        except ValueError:
            return math.nan
    days, hours, minutes, seconds = (
        int(clock[name] or 0) for name in ("days", "hours", "minutes", "seconds")
    )
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and what it does around training.

    Args:
        name: Name of the run; its folder is ``root/name/1``, ``2``, ….
        root: Folder that all runs lie in.
        time_budget: Seconds of wall-clock time for everything up to the end of training, imports included;
            as many steps are taken as fit. ``null`` leaves the end to ``trainer.max_steps`` or
            ``trainer.max_epochs``. The environment variable INSIGHT_TIME_BUDGET overrides it.
        time_limit: Wall-clock time of this process, in seconds or as "HH:MM:SS", after which it saves, ends
            with exit code 143 and can be resumed, as after SIGTERM; ``null`` for none. The plan of the run
            does not change: unlike ``time_budget``, which is when the whole run is finished. Leave room
            before the limit of the job for a step, a validation and saving.
        num_threads: CPU threads of torch; ``null`` tries out which number multiplies fastest here.
        test: Measure the best checkpoint on the test text when training has ended, if there is one.
        find_learning_rate: Optimizer steps of a sweep over learning rates before training, from a hundredth
            to a hundred times the configured ones; what it says is printed and drawn in the report, and the
            run goes on as it would without. ``null`` for none; 100 is a good number.
        hang_timeout: Seconds after which a process of several that makes no progress ends the run, with a
            message that says which it is and where; ``null`` leaves that to torch's exchanges of data, which
            fail after a time-out of their own and name nobody.
        rendezvous_timeout: Seconds that the processes of a run wait for one another when it starts.
    """

    name: str = "run"
    root: str = "runs"
    time_budget: float | None = None
    time_limit: float | str | None = None
    num_threads: int | None = None
    test: bool = True
    find_learning_rate: int | None = None
    hang_timeout: float | None = 1200.0
    rendezvous_timeout: float = 300.0

    def __post_init__(self) -> None:
        check_run_name(self.name)
        if self.num_threads is not None and self.num_threads < 1:
            raise ConfigError(
                f"run.num_threads={self.num_threads}: at least one thread is needed", "use null"
            )
        if self.find_learning_rate is not None and self.find_learning_rate < 20:
            raise ConfigError(
                f"run.find_learning_rate={self.find_learning_rate}: a sweep needs at least 20 steps",
                "use 100",
            )
        if self.time_limit is not None:
            duration_in_seconds("run.time_limit", self.time_limit)
        if self.time_budget is not None and not (self.time_budget > 0 and math.isfinite(self.time_budget)):
            raise ConfigError(
                f"run.time_budget={self.time_budget}: must be a positive number of seconds",
                "use for example 150",
            )
        for name in ("hang_timeout", "rendezvous_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
                raise ConfigError(f"run.{name}={seconds}: must be a positive number of seconds", "use 300")

    @property
    def time_limit_seconds(self) -> float | None:
        """``time_limit`` as a number."""
        return None if self.time_limit is None else duration_in_seconds("run.time_limit", self.time_limit)
