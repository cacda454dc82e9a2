"""The devices and machines on which a run trains, and whether strategy and precision fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from insight.runtime.errors import ConfigError
from insight.runtime.hardware import present_accelerator
from insight.runtime.processes import ProcessPlace


@dataclass(frozen=True)
class Placement:
    """The devices that a run trains on."""

    accelerator: str  # cpu, cuda, mps, or another that Lightning knows
    num_local: int = 1  # processes on each machine, one per device
    num_machines: int = 1

    @property
    def num_processes(self) -> int:
        """World size, the number of processes of the run."""
        return self.num_local * self.num_machines

    def __str__(self) -> str:
        processes = f"{self.num_processes} process{'es' if self.num_processes > 1 else ''}"
        return f"{processes} on {self.num_machines} machine{'s' if self.num_machines > 1 else ''}"


def placement_of(trainer: Any, place: ProcessPlace) -> Placement:
    """The devices that the group ``trainer`` requests, checked against the machine and the launcher.

    Raises:
        ConfigError: A device, strategy or number of processes is unavailable, or they do not fit together.
    """
    accelerator = accelerator_of(trainer.accelerator)
    _check_precision(trainer.precision, trainer.strategy)
    devices = _num_devices(trainer.devices, accelerator)
    if place.launcher:
        _check_launched(trainer, devices, place)
        return Placement(accelerator, place.num_local, place.num_machines)
    return Placement(accelerator, devices, trainer.num_nodes or 1)


def accelerator_of(given: Any) -> str:
    """The kind of device that ``trainer.accelerator`` means on this machine."""
    present = present_accelerator()
    if given in (None, "auto"):
        return present
    if given in ("gpu", "cuda", "mps") and given != present and (given != "gpu" or present == "cpu"):
        remedy = "use cpu or auto, or install a torch that was built for your device"
        raise _mistake("accelerator", given, "torch finds no such device here", remedy)
    if given == "gpu":
        return present
    return given if isinstance(given, str) else ""  # the user's own object knows its requirements


def device_number(given: Any, local_rank: int) -> int:
    """The device of this machine that a process uses: the listed ``trainer.devices``, or all, in turn."""
    listed = _listed(given)
    return int(listed[local_rank]) if listed and local_rank < len(listed) else local_rank


def _listed(given: Any) -> list[Any] | None:
    """The numbers of devices that are listed one by one, or ``None``."""
    if isinstance(given, (list, tuple)):
        return list(given)
    return [part for part in str(given).split(",") if part.strip()] if "," in str(given) else None


def _num_devices(given: Any, accelerator: str) -> int:
    """The number of devices of this machine that are requested, counted as Lightning does."""
    import torch

    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(accelerator)
    listed, text = _listed(given), str(given).strip()
    if listed is not None:
        wanted = len(listed)
    elif text in ("auto", "-1", "None"):
        wanted = there or 1
    else:
        wanted = int(text) if text.isdecimal() else 0
    if wanted < 1:
        raise _mistake("devices", given, "is not a number of devices", "use 1 or more, or auto")
    if there is not None and wanted > there:
        problem = f"there are {there} {accelerator} device{'s' if there > 1 else ''} here"
        raise _mistake("devices", given, problem, f"use {there} or fewer")
    return wanted


def _check_precision(precision: Any, strategy: Any) -> None:
    """Refuse a precision that the strategy cannot use; names of strategies are checked early."""
    from lightning.pytorch.strategies import ModelParallelStrategy

    name = getattr(strategy, "class_path", strategy)
    kinds: list[type] = [ModelParallelStrategy, *ModelParallelStrategy.__subclasses__()]
    is_sharded = isinstance(strategy, ModelParallelStrategy) or (
        isinstance(name, str) and name.rpartition(".")[2] in ("fsdp2", *(kind.__name__ for kind in kinds))
    )
    # The gradient scaler of 16-mixed would have to inspect the gradients of all shards.
    if is_sharded and str(precision) in ("16-mixed", "16"):
        remedy = "use bf16-mixed, 16-true or 32-true, or strategy ddp"
        raise _mistake("precision", precision, f"does not go with trainer.strategy={name}", remedy)


def _check_launched(trainer: Any, devices: int, place: ProcessPlace) -> None:
    starter = place.launcher if place.launcher != "environment" else "whoever set RANK and WORLD_SIZE"
    if trainer.devices not in (None, "auto", -1, "-1") and devices != place.num_local:
        option, there = "devices", f"{place.num_local} on this machine"
    elif trainer.num_nodes not in (None, 1, place.num_machines):  # 1 is Lightning's default
        option, there = "num_nodes", f"processes on {place.num_machines}"
    else:
        return
    problem, remedy = f"{starter} started {there}", f"leave trainer.{option} out: it follows"
    raise _mistake(option, getattr(trainer, option), problem, remedy)


def _mistake(option: str, value: Any, problem: str, remedy: str) -> ConfigError:
    return ConfigError(problem, remedy, option=f"trainer.{option}", value=value)
