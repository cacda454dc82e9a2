"""Has a run of several processes end when one of them hangs, and say which."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from insight.cli.launch import Launch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from insight.cli.lightning import InsightCLI

# From the moment when somebody is late: to ask all processes, to write their stacks and to end.
_TIME_TO_JUDGE = timedelta(minutes=2)


def watch_ranks(cli: InsightCLI, launch: Launch, trainer: Trainer) -> None:
    """Wait for all processes, and have none of them wait for ever for one that hangs."""
    from insight.callbacks.hang_watch import HangWatch

    seconds = cli.run_config.hang_timeout
    # Each machine may have to encode the text for itself.
    launch.everyone_is_ready(seconds and max(seconds, cli.run_config.rendezvous_timeout))
    if launch.meeting is not None and seconds is not None:
        let_collectives_wait(trainer.strategy, seconds)
        # First, so that it ends before others do what only the first process does.
        cast(Any, trainer).callbacks.insert(0, HangWatch(launch.meeting, seconds, launch.kill_children))


def let_collectives_wait(strategy: Any, seconds: float) -> None:
    """Keep collective operations from timing out, and naming nobody, before the watch has judged.

    Args:
        strategy: Of a Trainer that has not begun; a time-out of the user's own is kept.
        seconds: Of the watch.
    """
    from torch.distributed.constants import default_pg_timeout

    if hasattr(strategy, "_timeout") and strategy._timeout in (None, default_pg_timeout):
        strategy._timeout = max(default_pg_timeout, timedelta(seconds=seconds) + _TIME_TO_JUDGE)
