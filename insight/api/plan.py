"""Whether all processes of a run have the same configuration and the same code."""

from __future__ import annotations

import dataclasses
import socket
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import xxhash

import insight
from insight.api.launch import Launch
from insight.checkpoints.resume import Resumed, differences
from insight.runtime.errors import LaunchError
from insight.runtime.run_folder import RunFolder
from insight.runtime.version import __version__

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from insight.api.configuration import InsightCLI


_SHOWN = 3


def identity_of(config: str) -> dict[str, str]:
    """What must be the same in every process, and where this one runs.

    Args:
        config: The complete configuration as YAML.
    """
    return {
        "host": socket.gethostname(),
        "insight": __version__,
        "torch": version("torch"),
        "lightning": version("lightning"),
        "source": source_hash(Path(insight.__file__).parent),
        "config": config,
    }


def check_agreement(first: dict[str, str], own: dict[str, str]) -> None:
    """Refuse to train where this process would do something else than the first.

    Args:
        first: :func:`identity_of` the first process.
        own: Of this one.

    Raises:
        LaunchError: Versions, source files or configurations differ.
    """
    for name in ("insight", "torch", "lightning", "source"):
        if own[name] != first[name]:
            what = "source files of insight" if name == "source" else name
            raise LaunchError(
                f"other code than rank 0 on {first['host']}: {what} {own[name]} on {own['host']}, "
                f"{first[name]} there",
                "install the same on every machine",
            )
    found = differences(first["config"], own["config"])
    if found:
        shown = ", ".join(f"{option}={here} (rank 0: {there})" for option, there, here in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise LaunchError(
            f"another configuration than rank 0: {shown}{more}", "give every process the same command"
        )


def source_hash(package: Path) -> str:
    """xxh3 of names and contents of a package's Python files."""
    hasher = xxhash.xxh3_64()
    for path in sorted(package.rglob("*.py")):
        hasher.update(f"{path.relative_to(package).as_posix()}\n".encode())
        hasher.update(path.read_bytes())
    return str(hasher.hexdigest())


@dataclasses.dataclass(frozen=True)
class Plan:
    """Decisions that every process of a run must share.

    Args:
        resumed: What the run goes on from.
        folder: Where it writes.
        num_threads: CPU threads of each process.
        precision: Lightning's name.
        identity: Code and configuration of the first process.
    """

    resumed: Resumed | None
    folder: RunFolder
    num_threads: int
    precision: str
    identity: dict[str, str]

    @classmethod
    def from_plain(cls, value: dict[str, Any]) -> Plan:
        """Undo :meth:`to_plain`."""
        resumed = Resumed.from_plain(value["resumed"]) if value["resumed"] else None
        return cls(**{**value, "resumed": resumed, "folder": RunFolder(Path(value["folder"]))})

    def to_plain(self) -> dict[str, Any]:
        """As JSON, for another process that may stand in another folder."""
        return {
            "resumed": self.resumed.to_plain() if self.resumed else None,
            "folder": str(self.folder.path.absolute()),
            "num_threads": self.num_threads,
            "precision": self.precision,
            "identity": self.identity,
        }

    def follow(self, cli: InsightCLI) -> None:
        """Take the decisions over, in a process that is not the first.

        Raises:
            LaunchError: This process has other code or another configuration.
        """
        cli.adopt(self.num_threads, self.precision)
        check_agreement(self.identity, decided_identity(cli))


def decided_identity(cli: InsightCLI) -> dict[str, str]:
    """Code and configuration of this process, once threads and precision are chosen."""
    assert cli.choices.num_threads  # which writes them into the configuration
    return identity_of(cli.saved_config())


def watch_ranks(cli: InsightCLI, launch: Launch, trainer: Trainer) -> None:
    """Wait for all processes, and have none of them wait for ever for one that hangs."""
    from insight.callbacks.hang_watch import HangWatch
    from insight.training.lightning_internals import let_collectives_wait

    seconds = cli.run_config.hang_timeout
    # Each machine may have to encode the text for itself.
    launch.everyone_is_ready(seconds and max(seconds, cli.run_config.rendezvous_timeout))
    if launch.meeting is not None and seconds is not None:
        let_collectives_wait(trainer.strategy, seconds)
        # First, so that it ends before others do what only the first process does.
        cast(Any, trainer).callbacks.insert(0, HangWatch(launch.meeting, seconds, launch.kill_children))
