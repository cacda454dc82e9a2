"""The ``run`` group of a configuration: the folder of a run, and the steps around training."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from insight.api.ranges import range_mistake
from insight.runtime.errors import ConfigError
from insight.runtime.run_folder import check_run_name

_CLOCK = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")  # days, hours, minutes, seconds


def duration_in_seconds(option: str, value: float | str) -> float:
    """The seconds of a number or of ``MM:SS``, ``HH:MM:SS`` or ``D-HH:MM:SS``, as SLURM writes it.

    Raises:
        ConfigError: The value of ``option`` is no duration, not above 0, or longer than 30 years.
    """
    clock = _CLOCK.fullmatch(str(value).strip())
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        value_in_seconds = ((days * 24.0 + hours) * 60 + minutes) * 60 + seconds
    else:
        try:
            value_in_seconds = float(value)
        except ValueError:
            value_in_seconds = math.nan
    if not 0 < value_in_seconds < 1e9:
        problem = "must be a positive time, of a few years at most"
        remedy = "use seconds or HH:MM:SS, for example 3600 or 01:00:00"
        raise ConfigError(problem, remedy, option=option, value=value)
    return value_in_seconds


@dataclass(frozen=True)
class RunConfig:
    """The folder of a run, and the steps around training.

    Args:
        name: Name of the run; its folder is ``root/name/1``, ``2``, ….
        root: The folder of all runs.
        time_budget: Seconds of wall-clock time for everything up to the end of training, imports included;
            as many steps are taken as fit. ``null`` leaves the end to ``trainer.max_steps`` or
            ``trainer.max_epochs``. The environment variable INSIGHT_TIME_BUDGET overrides it.
        time_limit: Wall-clock time of this process, in seconds or as "HH:MM:SS", after which it saves, ends
            with exit code 143 and can be resumed, as after SIGTERM; ``null`` for none. Unlike
            ``time_budget``, it does not change the plan of the run. Leave room before the limit of the job
            for a step, a validation and saving.
        num_threads: CPU threads of torch; ``null`` measures which number multiplies fastest.
        test: Measure the best checkpoint on the test text after training, if there is one.
        find_learning_rate: Optimizer steps of a sweep over learning rates before training, from a hundredth
            to a hundred times the configured ones; its result is printed and drawn in the report, and does
            not change the run. ``null`` for none; 100 is a good number.
        hang_timeout: Seconds without progress after which a run of several processes ends, with a message
            that says which process hangs and where; ``null`` leaves that to the time-outs of torch's
            collective operations, whose errors name no process.
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
        for name, value in vars(self).items():
            mistake = range_mistake(f"run.{name}", value)
            if mistake and name != "time_limit":
                raise mistake
        if self.time_limit is not None:
            duration_in_seconds("run.time_limit", self.time_limit)

    @property
    def time_limit_seconds(self) -> float | None:
        """``time_limit`` in seconds."""
        return None if self.time_limit is None else duration_in_seconds("run.time_limit", self.time_limit)
