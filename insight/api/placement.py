"""The devices and machines on which a run trains, and whether strategy and precision fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from insight.runtime.errors import ConfigError, nearest
from insight.runtime.processes import ProcessPlace

_SHARDED = ("fsdp2", "model_parallel")
_REPLACED = {
    "fsdp": "use fsdp2",
    "fsdp_cpu_offload": "use fsdp2",
    "ddp_spawn": "use ddp: every process parses the command itself",
    "ddp_fork": "use ddp: every process parses the command itself",
    "ddp_notebook": "use ddp: every process parses the command itself",
}


@dataclass(frozen=True)
class Placement:
    """The devices that a run trains on.

    Args:
        accelerator: ``cpu``, ``cuda``, ``mps``, or another that Lightning knows.
        num_local: Number of processes on each machine, one per device.
        num_machines: Number of machines.
    """

    accelerator: str
    num_local: int = 1
    num_machines: int = 1

    @property
    def num_processes(self) -> int:
        """World size, the number of processes of the run."""
        return self.num_local * self.num_machines

    def __str__(self) -> str:
        machines = f"{self.num_machines} machine{'s' if self.num_machines > 1 else ''}"
        return f"{self.num_processes} process{'es' if self.num_processes > 1 else ''} on {machines}"


def placement_of(trainer: Any, place: ProcessPlace) -> Placement:
    """The devices that the group ``trainer`` requests, checked against the machine and the launcher.

    Raises:
        ConfigError: A device, strategy or number of processes is unavailable, or they do not fit together.
    """
    accelerator = accelerator_of(trainer.accelerator)
    _check_strategy(trainer.strategy, trainer.precision)
    devices = _num_devices(trainer.devices, accelerator)
    if place.launcher:
        _check_launched(trainer, devices, place)
        return Placement(accelerator, place.num_local, place.num_machines)
    return Placement(accelerator, devices, trainer.num_nodes or 1)


def accelerator_of(given: Any) -> str:
    """The kind of device that ``trainer.accelerator`` means on this machine.

    Raises:
        ConfigError: torch finds no such device.
    """
    import torch

    present = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if given in (None, "auto"):
        return present
    if given in ("gpu", "cuda", "mps") and present not in (("cuda", "mps") if given == "gpu" else (given,)):
        raise ConfigError(
            "torch finds no such device here",
            "use cpu or auto, or install a torch that was built for your device",
            option="trainer.accelerator",
            value=given,
        )
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
        raise ConfigError(
            "is not a number of devices", "use 1 or more, or auto", option="trainer.devices", value=given
        )
    if there is not None and wanted > there:
        plural = "s" if there > 1 else ""
        raise ConfigError(
            f"there are {there} {accelerator} device{plural} here",
            f"use {there} or fewer",
            option="trainer.devices",
            value=given,
        )
    return wanted


def _check_strategy(given: Any, precision: Any) -> None:
    from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry

    name = getattr(given, "class_path", given)
    if isinstance(given, str):
        known = ["auto", *StrategyRegistry.available_strategies()]
        base = given.partition("_find_unused")[0]
        if base in _REPLACED or given not in known:
            match = nearest(given, known)
            remedy = f"did you mean {match!r}?" if match else "use auto, ddp or fsdp2"
            raise ConfigError(
                "cannot be used here" if base in _REPLACED else "there is no such strategy",
                _REPLACED.get(base, remedy),
                option="trainer.strategy",
                value=given,
            )
        is_sharded = given in _SHARDED
    else:
        kinds: list[type] = [ModelParallelStrategy, *ModelParallelStrategy.__subclasses__()]
        is_sharded = isinstance(given, ModelParallelStrategy) or (
            isinstance(name, str) and name.rpartition(".")[2] in {kind.__name__ for kind in kinds}
        )
    # The gradient scaler of 16-mixed would have to inspect the gradients of all shards.
    if is_sharded and str(precision) in ("16-mixed", "16"):
        raise ConfigError(
            f"does not go with trainer.strategy={name}",
            "use bf16-mixed, 16-true or 32-true, or strategy ddp",
            option="trainer.precision",
            value=precision,
        )


def _check_launched(trainer: Any, devices: int, place: ProcessPlace) -> None:
    starter = place.launcher if place.launcher != "environment" else "whoever set RANK and WORLD_SIZE"
    for option, value, agrees, there in (
        (
            "devices",
            trainer.devices,
            trainer.devices in (None, "auto", -1, "-1") or devices == place.num_local,
            f"{place.num_local} on this machine",
        ),
        (
            "num_nodes",
            trainer.num_nodes,
            trainer.num_nodes in (None, 1, place.num_machines),  # 1 is Lightning's default
            f"processes on {place.num_machines}",
        ),
    ):
        if not agrees:
            raise ConfigError(
                f"{starter} started {there}",
                f"leave trainer.{option} out: it follows",
                option=f"trainer.{option}",
                value=value,
            )
