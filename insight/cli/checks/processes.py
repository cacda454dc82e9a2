"""Which processes a run would have, as the Trainer itself would make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from insight.cli.checks.findings import Findings
from insight.runtime.errors import ConfigError
from insight.runtime.messages import plain_line
from insight.runtime.processes import shared_cores

if TYPE_CHECKING:
    from insight.cli.lightning import InsightCLI


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Args:
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        strategy: Name of the strategy's class.
        num_devices: Processes on each machine.
        num_nodes: Machines.
        num_readers: Processes that read different text; those of one tensor-parallel group read the same.
        shards_weights: Whether each keeps only its part of weights and optimizer.
    """

    accelerator: str
    strategy: str
    num_devices: int
    num_nodes: int
    num_readers: int
    shards_weights: bool

    @property
    def num_processes(self) -> int:
        """All of them."""
        return self.num_devices * self.num_nodes

    @property
    def num_sharing(self) -> int:
        """How many share the cores and the memory of one machine; those with a device each share nothing."""
        return self.num_devices if self.accelerator == "cpu" else 1


def planned_trainer(cli: InsightCLI) -> Trainer:
    """The Trainer of the run; making it starts no process and writes nothing.

    Other machines than this one are taken to be there: who starts the processes is not known yet.

    Raises:
        ConfigError: Accelerator, devices, strategy and precision do not fit together, or not this machine.
    """
    assert cli.placement  # says in its own words what does not go together
    try:
        return cli.make_trainer()
    except (ValueError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"trainer: {plain_line(str(error))}", "change the option in --config or beside it"
        ) from error


def processes_of(trainer: Trainer) -> Processes:
    """The processes that ``trainer`` would start."""
    strategy: Any = trainer.strategy
    num_processes = trainer.num_devices * trainer.num_nodes
    return Processes(
        accelerator=strategy.root_device.type,
        strategy=type(strategy).__name__,
        num_devices=trainer.num_devices,
        num_nodes=trainer.num_nodes,
        num_readers=max(1, num_processes // _tensor_parallel_size(strategy)),
        shards_weights=isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)),
    )


def check_processes(processes: Processes, findings: Findings) -> None:
    """Warn of more processes than this machine can keep busy."""
    num_cores = shared_cores(processes.num_sharing)
    if processes.num_sharing > num_cores:
        findings.warn(
            f"trainer.devices={processes.num_devices}: {num_cores} cores here for that many processes",
            f"use --trainer.devices {num_cores} or fewer",
        )


def _tensor_parallel_size(strategy: Any) -> int:
    if not isinstance(strategy, ModelParallelStrategy):
        return 1
    size = strategy._tensor_parallel_size
    return strategy.num_processes if size == "auto" else int(size)
