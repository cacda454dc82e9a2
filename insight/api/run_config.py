"""The ``run`` group of a configuration: where a run lives and what it does around training."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from insight.api.ranges import range_mistake
from insight.runtime.errors import ConfigError
from insight.runtime.run_folder import check_run_name

_LONGEST_SECONDS = 1e9
_CLOCK = re.compile(r"(?:(?:(?P<days>\d+)-)?(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


def duration_in_seconds(option: str, value: float | str) -> float:
    """Seconds of a duration.

    Args:
        option: The option that has the value, for messages.
        value: A number of seconds, or ``MM:SS``, ``HH:MM:SS`` or ``D-HH:MM:SS`` as SLURM writes it.

    Raises:
        ConfigError: It is neither, not above 0, or longer than 30 years.
    """
    seconds = _from_text(value) if isinstance(value, str) else float(value)
    if not 0 < seconds < _LONGEST_SECONDS:
        raise ConfigError(
            "must be a positive time, of a few years at most",
            "use seconds or HH:MM:SS, for example 3600 or 01:00:00",
            option=option,
            value=value,
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
        for name in (
            "time_budget",
            "num_threads",
            "find_learning_rate",
            "hang_timeout",
            "rendezvous_timeout",
        ):
            mistake = range_mistake(f"run.{name}", getattr(self, name))
            if mistake:
                raise mistake
        if self.time_limit is not None:
            duration_in_seconds("run.time_limit", self.time_limit)

    @property
    def time_limit_seconds(self) -> float | None:
        """``time_limit`` as a number."""
        return None if self.time_limit is None else duration_in_seconds("run.time_limit", self.time_limit)
