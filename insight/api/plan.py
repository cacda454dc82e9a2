"""The decisions of a run's first process for all others, and the check that all do the same work."""

from __future__ import annotations

import dataclasses
import math
import socket
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import xxhash

import insight
from insight.api.config_files import early_option
from insight.api.run_config import RunConfig
from insight.checkpoints.resume import Resumed, differences
from insight.runtime.errors import InsightError, LaunchError
from insight.runtime.launching.launch import Launch
from insight.runtime.launching.rank_watch import Point
from insight.runtime.version import __version__

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from insight.api.configuration import InsightCLI


_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Plan:
    """Decisions that every process of a run must share."""

    checkpoint: str | None  # from which the run continues; absolute, as working folders may differ
    num_threads: int  # of each process
    precision: str  # Lightning's name
    identity: dict[str, str]  # code and configuration of the first process

    @classmethod
    def of_first(cls, cli: InsightCLI, resumed: Resumed | None) -> Plan:
        """The decisions of the first process, once its configuration is parsed."""
        checkpoint = str(resumed.checkpoint.absolute()) if resumed else None
        chosen = cli.choices  # this enters the choices in the configuration
        return cls(checkpoint, chosen.num_threads, chosen.precision, _identity(cli.saved_config()))

    @property
    def resumed(self) -> Resumed | None:
        """The checkpoint from which the run continues."""
        return Resumed(Path(self.checkpoint)) if self.checkpoint else None

    def follow(self, cli: InsightCLI) -> None:
        """Apply the decisions in a process that is not the first."""
        cli.adopt(self.num_threads, self.precision)
        _check_agreement(self.identity, Plan.of_first(cli, self.resumed).identity)


def rendezvous_timeout(arguments: list[str]) -> float:
    """``run.rendezvous_timeout`` before anything is parsed; the parser reports mistakes in it later."""
    default = RunConfig.rendezvous_timeout
    try:
        return float(early_option(arguments, "run", "rendezvous_timeout") or default)
    except (InsightError, ValueError):
        return default


def watch_ranks(cli: InsightCLI, launch: Launch, trainer: Trainer) -> None:
    """Wait for all processes, and make sure that none of them waits forever for one that hangs."""
    from insight.callbacks.interruption import HangWatch
    from insight.training.lightning_internals import let_collectives_wait

    seconds = cli.run_config.hang_timeout
    # Each machine may have to encode the text itself.
    patience = max(seconds, cli.run_config.rendezvous_timeout) if seconds else math.inf
    launch.wait_until_all(Point.READY, patience, "run.hang_timeout")
    if launch.meeting is not None and seconds is not None:
        let_collectives_wait(trainer.strategy, seconds)
        # This callback comes first, so that it ends before others do work that only the first process does.
        cast(Any, trainer).callbacks.insert(0, HangWatch(launch.meeting, seconds))


def _identity(config: str) -> dict[str, str]:
    """Everything that must agree in all processes, and the name of this machine."""
    code = {"insight": __version__, "torch": version("torch"), "lightning": version("lightning")}
    code["source files of insight"] = _source_hash(Path(insight.__file__).parent)
    return {"host": socket.gethostname(), "config": config, **code}


def _check_agreement(first: dict[str, str], own: dict[str, str]) -> None:
    for name, here in own.items():
        if name not in ("host", "config") and here != first.get(name):
            raise LaunchError(
                f"other code than rank 0 on {first['host']}: {name} {here} on {own['host']}, "
                f"{first.get(name)} there",
                "install the same on every machine",
            )
    found = differences(first["config"], own["config"])
    if found:
        shown = ", ".join(f"{option}={here} (rank 0: {there})" for option, there, here in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        problem = f"another configuration than rank 0: {shown}{more}"
        raise LaunchError(problem, "give every process the same command")


def _source_hash(package: Path) -> str:
    """The xxh3 hash of the names and contents of a package's Python files."""
    hasher = xxhash.xxh3_64()
    for path in sorted(package.rglob("*.py")):
        hasher.update(f"{path.relative_to(package).as_posix()}\n".encode())
        hasher.update(path.read_bytes())
    return str(hasher.hexdigest())
