"""What the first process of a run decides for all: what to resume, where to write, threads and precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.cli.agreement import check_agreement, identity_of
from insight.cli.resuming import Resumed
from insight.runtime.run_folder import RunFolder

if TYPE_CHECKING:
    from insight.cli.lightning import InsightCLI


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
