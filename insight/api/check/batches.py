"""The processes and batches that a run would have, as the Trainer itself would make them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from insight.api.check.findings import Findings
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.messages import plain_line
from insight.runtime.processes import shared_cores

if TYPE_CHECKING:
    from insight.api.configuration import InsightCLI


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as its Trainer makes them."""

    accelerator: str  # cpu, cuda or mps
    strategy: str  # name of the strategy's class
    num_devices: int  # processes on each machine
    num_nodes: int
    num_readers: int  # processes that read different text; a tensor-parallel group reads the same
    shards_weights: bool  # whether each process holds only its part of weights and optimizer

    @property
    def num_processes(self) -> int:
        """World size, the number of all processes."""
        return self.num_devices * self.num_nodes

    @property
    def num_sharing(self) -> int:
        """Number of processes that share the cores and memory of a machine; 1 if each has its own device."""
        return self.num_devices if self.accelerator == "cpu" else 1


def planned_trainer(cli: InsightCLI) -> Trainer:
    """The Trainer of the run; making it starts no process and writes nothing.

    Other machines are assumed to exist, since it is not known yet which launcher starts the processes.
    """
    assert cli.placement  # it raises an error for options that do not fit together
    try:
        return cli.make_trainer()
    except ConfigError:
        raise
    except (ValueError, RuntimeError) as error:
        remedy = "change the option in --config or beside it"
        raise ConfigError(f"trainer: {plain_line(str(error))}", remedy) from error


def processes_of(trainer: Trainer) -> Processes:
    """The processes that ``trainer`` would start."""
    strategy: Any = trainer.strategy
    num_readers = trainer.num_devices * trainer.num_nodes
    if isinstance(strategy, ModelParallelStrategy):
        size = strategy._tensor_parallel_size
        num_readers = max(1, num_readers // (strategy.num_processes if size == "auto" else int(size)))
    return Processes(
        accelerator=strategy.root_device.type,
        strategy=type(strategy).__name__,
        num_devices=trainer.num_devices,
        num_nodes=trainer.num_nodes,
        num_readers=num_readers,
        shards_weights=isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)),
    )


def check_processes(processes: Processes, findings: Findings) -> None:
    """Warn if there are more processes than this machine can keep busy."""
    num_cores = shared_cores(processes.num_sharing)
    if processes.num_sharing > num_cores:
        problem = f"{num_cores} cores here for that many processes"
        remedy = f"use --trainer.devices {num_cores} or fewer"
        findings.warn(f"trainer.devices={processes.num_devices}: {problem}", remedy)


@dataclass(frozen=True)
class Batches:
    """The batches of a run."""

    batch_size: int  # sequences, on each process
    sequence_length: int
    num_readers: int  # processes that read different text
    accumulation: int  # batches per optimizer step
    per_epoch: int  # batches of one process
    per_validation: int  # batches of one process
    token_budget: int | None = None  # tokens of a batch of pairs, which is not rows times columns

    @property
    def tokens_per_batch(self) -> int:
        """Tokens of a batch on one process."""
        return self.token_budget or self.batch_size * self.sequence_length

    @property
    def tokens_per_step(self) -> int:
        """Tokens per optimizer step, over all processes and batches."""
        return self.tokens_per_batch * self.num_readers * self.accumulation

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; the last may have fewer batches."""
        return math.ceil(self.per_epoch / self.accumulation)

    def as_json(self) -> dict[str, int | None]:
        """Plain numbers."""
        more = {"tokens_per_step": self.tokens_per_step, "steps_per_epoch": self.steps_per_epoch}
        return dataclasses.asdict(self) | more


def batches_of(datamodule: Any, trainer: Trainer, processes: Processes) -> Batches:
    """The batches of a data module that is set up and not attached to a Trainer; it must fill one."""
    whole = len(datamodule.train_dataloader())
    # A global batch has a batch of each process. Dividing in two steps rounds down to the same number.
    per_epoch = whole // processes.num_readers
    budget = datamodule.tokens_per_batch if datamodule.size_option == "batch_tokens" else None
    if budget is not None:
        per_epoch = max(1, per_epoch)  # a batch may be smaller than its budget
    elif not per_epoch:
        size, num_readers = datamodule.batch_size, processes.num_readers
        raise DataError(
            f"data.batch_size={size} on each of {num_readers} processes: a step takes {size * num_readers} "
            "sequences, more than the training text has",
            f"use --data.batch_size {max(1, size * whole // num_readers)}, fewer processes or more text",
        )
    accumulation = trainer.accumulate_grad_batches
    sampling = getattr(datamodule, "sampling", None)
    if accumulation <= per_epoch and sampling is not None and not sampling.counts_batches:
        per_epoch -= per_epoch % accumulation  # this data module fills an epoch with whole steps
    loaders = datamodule.val_dataloader()
    sizes = map(len, loaders if isinstance(loaders, list) else [loaders])
    per_validation = sum(math.ceil(size / processes.num_readers) for size in sizes)
    rows, length = datamodule.batch_shape
    return Batches(
        batch_size=rows,
        sequence_length=length,
        num_readers=processes.num_readers,
        accumulation=accumulation,
        per_epoch=_limited(per_epoch, trainer.limit_train_batches),
        per_validation=_limited(per_validation, trainer.limit_val_batches),
        token_budget=budget,
    )


def check_batches(batches: Batches, trainer: Trainer, findings: Findings) -> None:
    """Check that accumulation and the validation interval divide the epoch."""
    accumulation, per_epoch = batches.accumulation, batches.per_epoch
    too_few = f"an epoch has only {per_epoch} batches"
    if accumulation > per_epoch:
        remedy = f"use --trainer.accumulate_grad_batches {per_epoch} or less, or a smaller data.batch_size"
        problem = f"{too_few}, and no step reaches over its end"
        findings.refuse(problem, remedy, option="trainer.accumulate_grad_batches", value=accumulation)
    elif per_epoch % accumulation and not 0 < trainer.max_steps < batches.steps_per_epoch:
        divisors = [divisor for divisor in range(1, per_epoch + 1) if per_epoch % divisor == 0]
        nearest = min(divisors, key=lambda divisor: (abs(divisor - accumulation), divisor))
        findings.warn(
            f"trainer.accumulate_grad_batches={accumulation}: the last step of an epoch of {per_epoch} "
            f"batches has only {per_epoch % accumulation}",
            f"use {nearest}, or know that this step counts as others do",
        )
    interval: Any = trainer.val_check_interval
    counts_in_epoch = trainer.check_val_every_n_epoch is not None
    if batches.per_validation and counts_in_epoch and isinstance(interval, int) and interval > per_epoch:
        remedy = "use --trainer.check_val_every_n_epoch null to count over the whole run"
        findings.refuse(too_few, remedy, option="trainer.val_check_interval", value=interval)


def batches_per_validation(batches: Batches, trainer: Trainer) -> float:
    """Training batches between two validations; infinite if there is no validation."""
    interval: Any = trainer.val_check_interval
    if not batches.per_validation or getattr(trainer, "_val_check_time_interval", None) is not None:
        return math.inf
    if trainer.check_val_every_n_epoch is None:
        return float(interval)
    if isinstance(interval, float):
        interval = max(1, int(batches.per_epoch * interval))
    per_epoch = batches.per_epoch // interval
    return batches.per_epoch * trainer.check_val_every_n_epoch / per_epoch if per_epoch else math.inf


def _limited(count: int, limit: float) -> int:
    """Lightning's rule: an integer is a limit, a float is a share."""
    return min(count, limit) if isinstance(limit, int) else int(count * limit)
