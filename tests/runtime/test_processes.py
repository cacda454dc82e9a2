"""Which process this is, as launchers say it; and who speaks."""

from __future__ import annotations

import os

import pytest

from insight.cli.main import main
from insight.runtime import processes
from insight.runtime.errors import LaunchError
from insight.runtime.processes import (
    ProcessPlace,
    act_alone,
    is_first_process,
    one_command,
    shared_cores,
    this_process,
)

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
}
SLURM = {
    "SLURM_NTASKS": "6",
    "SLURM_NTASKS_PER_NODE": "3",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NAME": "train",
}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in TORCHRUN:
            monkeypatch.delenv(name)


def become(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_alone() -> None:
    assert this_process() == ProcessPlace()
    assert is_first_process()


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        (TORCHRUN, ProcessPlace(5, 8, 1, 4, "torchrun")),
        (SLURM, ProcessPlace(4, 6, 1, 3, "srun")),
        (SLURM | TORCHRUN, ProcessPlace(5, 8, 1, 4, "torchrun")),
        ({"RANK": "1", "WORLD_SIZE": "3"}, ProcessPlace(1, 3, 0, 1, "environment")),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ProcessPlace(0, 1, 0, 1, "srun")),
    ],
)
def test_started_by_a_launcher(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: ProcessPlace
) -> None:
    become(monkeypatch, variables)
    assert this_process() == place
    assert is_first_process() == (place.rank == 0)


def test_a_command_of_one_process_ignores_launchers_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, TORCHRUN)
    with one_command():
        act_alone(True)
        assert this_process() == ProcessPlace()
        assert is_first_process()
    assert this_process().rank == 5
    assert not is_first_process()


@pytest.mark.parametrize("command", ["model list", "validate --checkpoint absent", "check --config no.yaml"])
def test_the_command_line_undoes_it(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    become(monkeypatch, TORCHRUN)
    main(command.split())
    assert this_process().rank == 5


def test_machines() -> None:
    assert ProcessPlace(5, 8, 1, 4, "torchrun").num_machines == 2


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_a_terminal_in_an_allocation_starts_what_it_likes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    become(monkeypatch, SLURM | {"SLURM_JOB_NAME": name})
    assert this_process() == ProcessPlace()
    assert is_first_process()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (TORCHRUN | {"RANK": "8"}, "RANK=8"),
        (TORCHRUN | {"RANK": "five"}, "RANK=five"),
        (TORCHRUN | {"LOCAL_RANK": "4"}, "LOCAL_RANK=4"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "3"}, "3 processes a machine do not divide"),
        ({name: SLURM[name] for name in SLURM if name != "SLURM_NTASKS_PER_NODE"}, "--ntasks-per-node"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "LOCAL_WORLD_SIZE is not set"),
    ],
)
def test_variables_that_contradict(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    become(monkeypatch, variables)
    with pytest.raises(LaunchError) as caught:
        this_process()
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("variables", "usable", "expected"),
    [
        ({}, 12, 12),
        (TORCHRUN, 12, 12),
        (SLURM, 12, 12),  # srun was not told how many are whose
        (SLURM | {"SLURM_CPUS_PER_TASK": "4"}, 4, 12),  # bound to its own
        (SLURM | {"SLURM_CPUS_PER_TASK": "4"}, 64, 12),  # not bound
        (SLURM | {"SLURM_CPUS_PER_TASK": "4"}, 2, 6),  # a container lends fewer
        (
            SLURM | TORCHRUN | {"SLURM_CPUS_PER_TASK": "4"},
            12,
            12,
        ),  # of torchrun, with all in it
    ],
)
def test_cores_of_one_process_are_not_divided_again(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], usable: int, expected: int
) -> None:
    """Each of three processes takes a third of what this says."""
    become(monkeypatch, variables)
    monkeypatch.setattr(processes, "usable_cores", lambda: usable)
    assert shared_cores(3) == expected
