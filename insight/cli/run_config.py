"""The ``run`` group of a configuration: where a run lives and what it does around training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from insight.runtime.errors import ConfigError
from insight.runtime.run_folder import check_run_name


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and what it does around training.

    Args:
        name: Name of the run; its folder is ``root/name/1``, ``2``, ….
        root: Folder that all runs lie in.
        time_budget: Seconds of wall-clock time for everything up to the end of training, imports included;
            as many steps are taken as fit. ``null`` leaves the end to ``trainer.max_steps`` or
            ``trainer.max_epochs``. The environment variable INSIGHT_TIME_BUDGET overrides it.
        num_threads: CPU threads of torch; ``null`` tries out which number multiplies fastest here.
        test: Measure the best checkpoint on the test text when training has ended, if there is one.
    """

    name: str = "run"
    root: str = "runs"
    time_budget: float | None = None
    num_threads: int | None = None
    test: bool = True

    def __post_init__(self) -> None:
        check_run_name(self.name)
        if self.num_threads is not None and self.num_threads < 1:
            raise ConfigError(
                f"run.num_threads={self.num_threads}: at least one thread is needed", "use null"
            )
        if self.time_budget is not None and not (self.time_budget > 0 and math.isfinite(self.time_budget)):
            raise ConfigError(
                f"run.time_budget={self.time_budget}: must be a positive number of seconds",
                "use for example 150",
            )
