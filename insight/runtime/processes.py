"""The place of this process among the processes of its run, from the variables that its launcher sets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from insight.runtime.errors import LaunchError
from insight.runtime.resources import usable_cores

# Whether this process belongs to no run of several processes, regardless of its environment.
_is_alone = False
_HOW_TO_START_ALL = {
    "srun": "SLURM_NTASKS={} asks for as many processes: start the command with srun, or unset SLURM_NTASKS",
    "environment": "WORLD_SIZE={} asks for as many processes: start them all, or unset RANK and WORLD_SIZE",
}


@dataclass(frozen=True)
class ProcessPlace:
    """The place of a process among those of its run.

    Its launcher is ``torchrun``, ``srun``, ``environment`` (another program has set RANK and WORLD_SIZE), or
    "" for a process that was started alone.
    """

    rank: int = 0
    num_processes: int = 1
    local_rank: int = 0  # among the processes of this machine
    num_local: int = 1  # number of processes on each machine
    launcher: str = ""

    @property
    def num_machines(self) -> int:
        """Number of machines of the run."""
        return self.num_processes // self.num_local

    @property
    def seems_alone(self) -> bool:
        """Whether SLURM's variables ask for several processes although srun seems not to have started them.

        SLURM sets most of its variables in a batch script too, but the number of a step only under srun.
        """
        is_step = bool({"SLURM_STEP_ID", "SLURM_STEPID"} & os.environ.keys())
        return self.launcher == "srun" and self.num_processes > 1 and not is_step

    @property
    def how_to_start_all(self) -> str:
        """The variable that asks for several processes, and the command that starts the others."""
        if self.launcher not in _HOW_TO_START_ALL:
            return "see what they say"
        return f"{_HOW_TO_START_ALL[self.launcher].format(self.num_processes)} to train in one process"


def act_alone(is_alone: bool) -> None:
    """Say whether this command runs in one process and ignores launchers; see :func:`one_command`."""
    global _is_alone
    _is_alone = is_alone


@contextlib.contextmanager
def one_command() -> Iterator[None]:
    """Undo :func:`act_alone` at the end of the block, since a program may run another command afterwards."""
    before = _is_alone
    try:
        yield
    finally:
        act_alone(before)


def this_process() -> ProcessPlace:
    """The place of this process.

    torchrun is looked for first, since it may run inside a SLURM job, then srun, then ``RANK`` and
    ``WORLD_SIZE``.

    Raises:
        LaunchError: A variable is missing, is not a number, or contradicts another.
    """
    if _is_alone:
        return ProcessPlace()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _checked("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", _number("LOCAL_WORLD_SIZE"))
    if _is_slurm_step():
        return _checked("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", _tasks_per_machine())
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        # Without local ranks there is one process per machine, as in a Kubernetes job of plain pods.
        num_local = _number("LOCAL_WORLD_SIZE", None if "LOCAL_RANK" in os.environ else 1)
        return _checked("environment", "RANK", "WORLD_SIZE", "LOCAL_RANK", num_local)
    return ProcessPlace()


def shared_cores(num_processes: int) -> int:
    """Number of cores that the ``num_processes`` processes of a run on this machine have together.

    srun binds each process to the cores of its ``--cpus-per-task``, so the cores that one process may use are
    then not shared.
    """
    cores = usable_cores()
    own = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if own.isdecimal() and this_process().launcher == "srun":
        return num_processes * max(1, min(cores, int(own)))
    return cores


def is_first_process() -> bool:
    """Whether this process prints messages for its run."""
    # A process that Lightning started knows only its local rank.
    names = ("RANK", *(["SLURM_PROCID"] if _is_slurm_step() else []), "LOCAL_RANK")
    return _is_alone or next(filter(None, map(os.environ.get, names)), "0") == "0"


def _checked(launcher: str, rank: str, size: str, local_rank: str, num_local: int) -> ProcessPlace:
    place = ProcessPlace(_number(rank), _number(size), _number(local_rank, 0), num_local, launcher)
    total, local = place.num_processes, place.local_rank
    if not 0 <= place.rank < total:
        problem = f"must lie below {size}={total}, counted from 0"
        raise LaunchError(problem, "let the launcher set both", option=rank, value=place.rank)
    if num_local < 1 or total % num_local:
        problem = f"{num_local} processes a machine do not divide it"
        raise LaunchError(problem, "start as many on every machine", option=size, value=total)
    if not 0 <= local < num_local:
        problem = f"there are {num_local} processes on this machine"
        remedy = "set LOCAL_RANK and LOCAL_WORLD_SIZE, or use torchrun"
        raise LaunchError(problem, remedy, option=local_rank, value=local)
    return place


def _is_slurm_step() -> bool:
    """Whether srun may have started this process, by Lightning's rule.

    A job with one of these names is a terminal in an allocation, in which the user starts processes.
    """
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def _tasks_per_machine() -> int:
    tasks = _number("SLURM_NTASKS")
    if "SLURM_NTASKS_PER_NODE" not in os.environ and tasks > 1:
        problem = "SLURM was not told how many processes run on each machine"
        how = "start the command by srun with --nodes and --ntasks-per-node in place of --ntasks"
        remedy = f"{how}, or unset SLURM_NTASKS to train in one process"
        raise LaunchError(problem, remedy, option="SLURM_NTASKS", value=tasks)
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
        raise LaunchError(
            "is not a whole number", "let the launcher set it", option=name, value=text
        ) from None
