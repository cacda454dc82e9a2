"""Which of the processes of a run this one is, as the environment variables of its launcher say."""

from __future__ import annotations

import os
from dataclasses import dataclass

from insight.runtime.errors import LaunchError
from insight.runtime.resources import usable_cores


@dataclass(frozen=True)
class ProcessPlace:
    """Where a process stands among those of its run.

    Args:
        rank: Number of this process, from 0.
        num_processes: Processes of the run.
        local_rank: Number among those of this machine.
        num_local: Processes on this machine, as on every other.
        launcher: What started them: ``torchrun``, ``srun``, ``environment`` (RANK and WORLD_SIZE were set by
            something else), or "" for a process that was started alone.
    """

    rank: int = 0
    num_processes: int = 1
    local_rank: int = 0
    num_local: int = 1
    launcher: str = ""

    @property
    def num_machines(self) -> int:
        """Machines of the run."""
        return self.num_processes // self.num_local


def this_process() -> ProcessPlace:
    """The place of this process.

    torchrun comes first, since it may run inside a SLURM job; then srun; then bare ``RANK``, ``WORLD_SIZE``.

    Raises:
        LaunchError: A variable is missing, no number, or contradicts another.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _checked("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", _number("LOCAL_WORLD_SIZE"))
    if _is_slurm_step():
        return _checked("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", _tasks_per_machine())
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        # Without local numbers there is one process a machine, as in a Kubernetes job of plain pods.
        num_local = _number("LOCAL_WORLD_SIZE", None if "LOCAL_RANK" in os.environ else 1)
        return _checked("environment", "RANK", "WORLD_SIZE", "LOCAL_RANK", num_local)
    return ProcessPlace()


def shared_cores(num_processes: int) -> int:
    """Cores that the processes of a run on this machine have together.

    srun binds each process to as many as ``--cpus-per-task`` says, so what one may use is not to be divided.

    Args:
        num_processes: Those that share the machine.
    """
    cores = usable_cores()
    own = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if this_process().launcher == "srun" and own.isdecimal():
        return num_processes * max(1, min(cores, int(own)))
    return cores


def is_first_process() -> bool:
    """Whether this process speaks for its run."""
    names = ["RANK", "SLURM_PROCID"] if _is_slurm_step() else ["RANK"]
    # A process that Lightning started knows its local number only.
    rank = next((os.environ[name] for name in (*names, "LOCAL_RANK") if os.environ.get(name)), "0")
    return rank == "0"


def _checked(launcher: str, rank: str, size: str, local_rank: str, num_local: int) -> ProcessPlace:
    place = ProcessPlace(_number(rank), _number(size), _number(local_rank, 0), num_local, launcher)
    if not 0 <= place.rank < place.num_processes:
        raise LaunchError(
            f"{rank}={place.rank}, {size}={place.num_processes}: ranks count from 0",
            "let the launcher set both",
        )
    if place.num_local < 1 or place.num_processes % place.num_local:
        raise LaunchError(
            f"{size}={place.num_processes}: {place.num_local} processes a machine do not divide it",
            "start as many on every machine",
        )
    if not 0 <= place.local_rank < place.num_local:
        raise LaunchError(
            f"{local_rank}={place.local_rank}: there are {place.num_local} processes on this machine",
            "set LOCAL_RANK and LOCAL_WORLD_SIZE, or use torchrun",
        )
    return place


def _is_slurm_step() -> bool:
    """As Lightning tells: a job of this name is a terminal in an allocation, and starts what it likes."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def _tasks_per_machine() -> int:
    tasks = _number("SLURM_NTASKS")
    if "SLURM_NTASKS_PER_NODE" not in os.environ and tasks > 1:
        raise LaunchError(
            f"SLURM_NTASKS={tasks}: SLURM was not told how many run on each machine",
            "use --nodes and --ntasks-per-node in place of --ntasks",
        )
    return _number("SLURM_NTASKS_PER_NODE", 1)


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    if text is None:
        raise LaunchError(f"{name} is not set", "start the processes with torchrun or srun (docs/cluster.md)")
    try:
        return int(text)
    except ValueError:
        raise LaunchError(f"{name}={text}: not a whole number", "let the launcher set it") from None
