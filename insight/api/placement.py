"""On how many devices of how many machines a run trains, and whether strategy and precision go with that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from insight.runtime.errors import ConfigError, nearest
from insight.runtime.processes import ProcessPlace

_SHARDED = ("fsdp2", "model_parallel")
_OF_OLD = {
    "fsdp": "use fsdp2",
    "fsdp_cpu_offload": "use fsdp2",
    "ddp_spawn": "use ddp: every process parses the command itself",
    "ddp_fork": "use ddp: every process parses the command itself",
    "ddp_notebook": "use ddp: every process parses the command itself",
}


@dataclass(frozen=True)
class Placement:
    """Where a run trains.

    Args:
        accelerator: ``cpu``, ``cuda``, ``mps``, or another that Lightning knows.
        num_local: Processes on each machine, one a device.
        num_machines: Machines.
    """

    accelerator: str
    num_local: int = 1
    num_machines: int = 1

    @property
    def num_processes(self) -> int:
        """Processes of the run."""
        return self.num_local * self.num_machines

    def __str__(self) -> str:
        machines = f"{self.num_machines} machine{'s' if self.num_machines > 1 else ''}"
        return f"{self.num_processes} process{'es' if self.num_processes > 1 else ''} on {machines}"


def placement_of(trainer: Any, place: ProcessPlace) -> Placement:
    """Where ``trainer`` asks to train, checked against the machine and against who started the processes.

    Args:
        trainer: The ``trainer`` group of a configuration.
        place: Of this process.

    Raises:
        ConfigError: There is no such device, strategy or number of processes, or they do not go together.
    """
    accelerator = accelerator_of(trainer.accelerator)
    _check_strategy(trainer.strategy, trainer.precision)
    devices = _num_devices(trainer.devices, accelerator)
    if place.launcher:
        _check_launched(trainer, devices, place)
        return Placement(accelerator, place.num_local, place.num_machines)
    return Placement(accelerator, devices, trainer.num_nodes or 1)


def accelerator_of(given: Any) -> str:
    """The kind of device that ``trainer.accelerator`` means here.

    Raises:
        ConfigError: torch finds no such device.
    """
    import torch

    present = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if given in (None, "auto"):
        return present
    if given in ("gpu", "cuda", "mps") and present not in (("cuda", "mps") if given == "gpu" else (given,)):
        raise ConfigError(
            f"trainer.accelerator={given}: torch finds no such device here",
            "use cpu or auto, or install a torch that was built for your device",
        )
    if given == "gpu":
        return present
    return given if isinstance(given, str) else ""  # an object of the user's own knows what it needs


def device_number(given: Any, local_rank: int) -> int:
    """Which device of this machine is a process's own: those that were listed, or all, in turn.

    Args:
        given: The option ``trainer.devices``.
        local_rank: Of the process.
    """
    if isinstance(given, (list, tuple)):
        listed = list(given)
    else:
        listed = [part for part in str(given).split(",") if part.strip()] if "," in str(given) else []
    return int(listed[local_rank]) if local_rank < len(listed) else local_rank


def _num_devices(given: Any, accelerator: str) -> int:
    """How many devices of this machine are asked for, counted as Lightning does."""
    import torch

    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(accelerator)
    text = str(given).strip()
    if isinstance(given, (list, tuple)):
        wanted = len(given)
    elif "," in text:
        wanted = len([part for part in text.split(",") if part.strip()])
    elif text in ("auto", "-1", "None"):
        wanted = there or 1
    elif text.isdecimal():
        wanted = int(text)
    else:
        wanted = 0
    if wanted < 1:
        raise ConfigError(f"trainer.devices={given}: not a number of devices", "use 1 or more, or auto")
    if there is not None and wanted > there:
        plural = "s" if there > 1 else ""
        raise ConfigError(
            f"trainer.devices={given}: there are {there} {accelerator} device{plural} here",
            f"use {there} or fewer",
        )
    return wanted


def _check_strategy(given: Any, precision: Any) -> None:
    from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry

    if isinstance(given, str):
        known = ["auto", *StrategyRegistry.available_strategies()]
        base = given.partition("_find_unused")[0]
        if base in _OF_OLD:
            raise ConfigError(f"trainer.strategy={given}: cannot be used here", _OF_OLD[base])
        if given not in known:
            match = nearest(given, known)
            remedy = f"did you mean {match!r}?" if match else "use auto, ddp or fsdp2"
            raise ConfigError(f"trainer.strategy={given}: there is no such strategy", remedy)
        is_sharded = given in _SHARDED
    else:
        is_sharded = _names_subclass(given, ModelParallelStrategy)
    # Its scaler would have to look at the gradients of all shards.
    if is_sharded and str(precision) in ("16-mixed", "16"):
        raise ConfigError(
            f"trainer.precision={precision}: does not go with trainer.strategy={_name_of(given)}",
            "use bf16-mixed, 16-true or 32-true, or strategy ddp",
        )


def _check_launched(trainer: Any, devices: int, place: ProcessPlace) -> None:
    starter = place.launcher if place.launcher != "environment" else "whoever set RANK and WORLD_SIZE"
    if trainer.devices not in (None, "auto", -1, "-1") and devices != place.num_local:
        raise ConfigError(
            f"trainer.devices={trainer.devices}: {starter} started {place.num_local} on this machine",
            "leave trainer.devices out: it follows",
        )
    # 1 is Lightning's default, so it cannot be told from an answer.
    if trainer.num_nodes not in (None, 1, place.num_machines):
        raise ConfigError(
            f"trainer.num_nodes={trainer.num_nodes}: {starter} started processes on {place.num_machines}",
            "leave trainer.num_nodes out: it follows",
        )


def _names_subclass(given: Any, base: type) -> bool:
    """Whether a strategy, or the class that a configuration names for it, is of a kind."""
    if isinstance(given, base):
        return True
    path = getattr(given, "class_path", None)
    if not isinstance(path, str):
        return False
    subclasses: list[type] = base.__subclasses__()
    return path.rpartition(".")[2] in {kind.__name__ for kind in (base, *subclasses)}


def _name_of(given: Any) -> str:
    return str(getattr(given, "class_path", given))
