"""Two processes, however they are started, do what one does; what cannot work ends all, in one line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command_line import Outcome, run_insight, write_tiny
from real_processes import (
    PYTHON_INSIGHT,
    TORCHRUN,
    WARM_INSIGHT,
    free_port,
    losses,
    ranks,
    run_together,
    started,
    wait_until_there,
)
from torch.distributed import DistBackendError, DistNetworkError

import insight
from insight.api.check import examine
from insight.checkpoints.reader import read_checkpoint
from insight.data import LanguageModelingDataModule
from insight.reporting import read_summary
from insight.runtime.errors import CheckpointError, InsightError
from insight.runtime.launching import launch
from insight.runtime.launching.meeting import Meeting
from insight.runtime.processes import ProcessPlace

NUM_STEPS = 6
# Muon multiplies in bfloat16, which blows the last bits of a sum in another order up.
EXACT = (
    *("--trainer.max_steps", str(NUM_STEPS), "--model.optimizer", "AdamW", "--run.rendezvous_timeout", "60"),
    *("--trainer.accelerator", "cpu"),
)
FIT = ("fit", "--config", "tiny.yaml", *EXACT)
PROGRAM = f"""\
import os

import insight

print("the program runs", flush=True)
common = {{
    "trainer.max_steps": {NUM_STEPS},
    "model.optimizer": "AdamW",
    "trainer.accelerator": "cpu",
    "trainer.devices": 2,
}}
insight.fit("tiny.yaml", common | {{"data.batch_size": 2}})
accumulated = {{"trainer.accumulate_grad_batches": 2, "trainer.val_check_interval": 4}}
insight.fit("tiny.yaml", common | accumulated | {{"data.batch_size": 1}})
print("variables:", [name for name in ("RANK", "WORLD_SIZE", "MASTER_PORT") if name in os.environ])
"""
# Two sequences on each of two processes are the four of the configuration.
HALF = ("--data.batch_size", "2")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The run folder of one process."""
    folder = tmp_path_factory.mktemp("one")
    write_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = run_insight(*FIT)
    assert outcome.code == 0, outcome.err
    return folder / "runs/tiny/1"


def same_training(run: Path, expected: Path) -> bool:
    """Whether two runs have the same losses and measure the same."""
    if losses(run).keys() != losses(expected).keys() or len(losses(run)) != NUM_STEPS:
        return False
    measured, wanted = read_summary(run), read_summary(expected)
    names = [name for name in wanted if name.startswith(("validation/", "test/"))]
    return losses(run) == pytest.approx(losses(expected), abs=1e-5) and all(
        measured[name].value == pytest.approx(wanted[name].value, rel=1e-5) for name in names
    )


def check_one_voice(outcome: Outcome, folder: Path) -> None:
    """One run folder, and nothing said twice."""
    assert [path.name for path in (folder / "runs/tiny").iterdir()] == ["1"]
    said = [line for line in outcome.err.splitlines() if line.startswith("insight: ")]
    assert sum("run folder" in line for line in said) == 1, outcome.err
    assert len(said) == len(set(said)), outcome.err
    assert outcome.out.count("report.html") == 1, outcome.out


@pytest.mark.slow
def test_a_plain_start(workplace: Path, one_process: Path) -> None:
    command = (str(Path(sys.executable).with_name("insight")), *FIT, *HALF)
    options = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    with started([*command, *options], workplace, "plain") as running:
        outcome = running.wait()
    assert outcome.code == 0, outcome.err
    assert "2 processes" in outcome.err
    check_one_voice(outcome, workplace)
    assert same_training(workplace / "runs/tiny/1", one_process)


@pytest.mark.slow
def test_a_program_that_trains_twice(workplace: Path, one_process: Path) -> None:
    """It is run once itself, and leaves nothing in its environment; accumulation changes no loss."""
    (workplace / "program.py").write_text(PROGRAM, encoding="utf-8")
    with started([sys.executable, "program.py"], workplace, "program") as running:
        outcome = running.wait()
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("the program runs") == 1
    assert "variables: []" in outcome.out
    for number in (1, 2):
        assert same_training(workplace / f"runs/tiny/{number}", one_process)


@pytest.mark.slow
def test_a_program_that_trains_twice_under_torchrun(workplace: Path, one_process: Path) -> None:
    """Its processes stay, and so does the store in which they find one another."""
    (workplace / "program.py").write_text(PROGRAM, encoding="utf-8")
    with started([*TORCHRUN, "program.py"], workplace, "program") as running:
        outcome = running.wait()
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("the program runs") == 2
    assert outcome.err.count("run folder") == 2, outcome.err
    for number in (1, 2):
        assert same_training(workplace / f"runs/tiny/{number}", one_process)


@pytest.mark.slow
def test_torchrun(workplace: Path, one_process: Path) -> None:
    with started([*TORCHRUN, "-m", "insight", *FIT, *HALF], workplace, "torchrun") as running:
        outcome = running.wait()
    assert outcome.code == 0, outcome.err
    check_one_voice(outcome, workplace)
    assert same_training(workplace / "runs/tiny/1", one_process)


@pytest.mark.slow
def test_the_variables_of_slurm(workplace: Path, one_process: Path) -> None:
    """As srun sets them; there is no SLURM here."""
    common = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "insight",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "MASTER_PORT": str(free_port()),
    }
    tasks = [{**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    outcomes = run_together([[*WARM_INSIGHT, *FIT, *HALF]] * 2, workplace, tasks)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    both = Outcome(0, outcomes[0].out + outcomes[1].out, outcomes[0].err + outcomes[1].err)
    check_one_voice(both, workplace)
    assert same_training(workplace / "runs/tiny/1", one_process)


@pytest.mark.slow
def test_another_training_would_be_noticed(workplace: Path, one_process: Path) -> None:
    assert run_insight(*FIT, "--data.seed", "1").code == 0
    assert not same_training(workplace / "runs/tiny/1", one_process)


@pytest.mark.slow
def test_a_killed_process_ends_the_run(workplace: Path) -> None:
    """Whether the first process sees its connection break or its child die: it says who it was."""
    options = ("--trainer.max_steps", "1000000", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    with started([*PYTHON_INSIGHT, *FIT, *options, *HALF], workplace, "killed") as running:
        wait_until_there(workplace / "runs/tiny/1/metrics.jsonl", running)
        (child,) = psutil.Process(running.process.pid).children()
        child.send_signal(signal.SIGKILL)
        outcome = running.wait()
    assert outcome.code == 1, outcome.err
    assert "insight: error: rank 1 was ended by SIGKILL" in outcome.err
    assert "a bug in Insight" not in outcome.err


@pytest.mark.slow
def test_processes_with_different_configurations(workplace: Path) -> None:
    commands = [[*WARM_INSIGHT, *FIT, *HALF], [*WARM_INSIGHT, *FIT, "--data.batch_size", "3"]]
    first, second = run_together(commands, workplace, ranks(2))
    assert (first.code, second.code) == (2, 2), first.err + second.err
    assert "error" not in first.err
    assert "rank 1: another configuration than rank 0" in second.error_line
    assert "batch_size=3 (rank 0: 2)" in second.error_line
    assert not (workplace / "runs").exists()


@pytest.mark.slow
def test_processes_with_different_code(workplace: Path) -> None:
    package = Path(insight.__file__).parent
    other = workplace / "other"
    shutil.copytree(package, other / "insight", ignore=shutil.ignore_patterns("__pycache__"))
    changed = other / "insight/training/schedules.py"
    changed.write_text(changed.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    environments = ranks(2)
    environments[1]["PYTHONPATH"] = str(other)
    commands = [[*program, *FIT, *HALF] for program in (WARM_INSIGHT, PYTHON_INSIGHT)]
    first, second = run_together(commands, workplace, environments)
    assert (first.code, second.code) == (2, 2), first.err + second.err
    assert "error" not in first.err
    assert "rank 1: other code than rank 0" in second.error_line
    assert "source files of insight" in second.error_line


@pytest.mark.slow
def test_a_mistake_is_said_once(workplace: Path) -> None:
    command = [*WARM_INSIGHT, *FIT, "--data.train_files", "missing.txt"]
    first, second = run_together([command] * 2, workplace, ranks(2))
    assert (first.code, second.code) == (2, 2), first.err + second.err
    assert "missing.txt" in first.error_line
    assert second.err == ""
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed"), True),
        (DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited"), True),
        (DistNetworkError("recvValue failed on SocketImpl: Connection reset by peer"), True),
        (ConnectionError("Connection to bucket.example.org was reset"), False),
        (RuntimeError("Socket of the database: Broken pipe"), False),
    ],
)
def test_only_collective_operations_say_that_a_process_is_gone(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_lost: bool
) -> None:
    """Whatever else breaks has a cause of its own, which is told to the others."""
    monkeypatch.setattr(launch, "_SECONDS_TO_LEARN", 0.0)
    expected = InsightError if is_lost else type(error)
    place = ProcessPlace(0, 2, 0, 2)
    meeting = Meeting(place, "127.0.0.1", 0, 20)

    def fail() -> None:
        with launch.Launch([], 20) as begun:
            begun.place, begun.meeting = place, meeting
            raise error

    with pytest.raises(expected, match="another process is gone" if is_lost else str(error)):
        fail()
    told = meeting.failure()
    assert (told is None) == is_lost
    assert told is None or told.message == str(error)


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], dict[str, str]]]:
    """Makes this process one of several that somebody else would have to start."""

    def become(rank: int, num_processes: int) -> dict[str, str]:
        environment = ranks(num_processes)[rank]
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return environment

    yield become
    monkeypatch.undo()
    assert not {"RANK", "NODE_RANK", "MASTER_PORT"} & os.environ.keys()


@pytest.mark.slow
def test_a_missing_process(
    insight: Callable[..., Outcome], as_rank: Callable[[int, int], dict[str, str]]
) -> None:
    as_rank(0, 3)
    outcome = insight(*FIT, "--run.rendezvous_timeout", "1")
    assert outcome.code == 2
    assert "1 of 3 processes came within 1 s: ranks 1, 2 are missing" in outcome.error_line


@pytest.mark.slow
def test_a_missing_first_process(
    insight: Callable[..., Outcome], as_rank: Callable[[int, int], dict[str, str]]
) -> None:
    port = as_rank(1, 2)["MASTER_PORT"]
    outcome = insight(*FIT, "--run.rendezvous_timeout=1")
    assert outcome.code == 2
    assert f"rank 1: nobody listens at MASTER_ADDR=127.0.0.1, MASTER_PORT={port}" in outcome.error_line


def test_a_port_in_use(
    insight: Callable[..., Outcome], as_rank: Callable[[int, int], dict[str, str]]
) -> None:
    port = as_rank(0, 2)["MASTER_PORT"]
    with socket.socket() as other:
        other.bind(("", int(port)))
        other.listen()
        outcome = insight(*FIT)
    assert outcome.code == 2
    assert f"MASTER_PORT={port}: is in use" in outcome.error_line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trainer.num_nodes", "2"], ["trainer.num_nodes=2", "torchrun or srun"]),
        (["--trainer.devices", "0"], ["trainer.devices=0", "1 or more"]),
        (["--trainer.devices", "two"], ["trainer.devices=two"]),
        (["--trainer.strategy", "dpp"], ["trainer.strategy=dpp", "did you mean 'ddp'?"]),
        (["--trainer.strategy", "ddp_spawn"], ["trainer.strategy=ddp_spawn", "use ddp"]),
        (["--trainer.strategy", "fsdp"], ["trainer.strategy=fsdp", "use fsdp2"]),
        (
            ["--trainer.strategy", "fsdp2", "--trainer.precision", "16-mixed"],
            ["trainer.precision=16-mixed", "fsdp2", "bf16-mixed"],
        ),
        (
            [
                '--trainer.strategy={"class_path": "insight.training.parallel.FSDP2Strategy"}',
                "--trainer.precision=16-mixed",
            ],
            ["trainer.precision=16-mixed", "FSDP2Strategy"],
        ),
        (["--trainer.precision", "16-mixed"], ["trainer.precision=16-mixed", "bf16-mixed"]),
        (
            ["--trainer.accumulate_grad_batches", "1000"],
            ["accumulate_grad_batches=1000", "an epoch has only"],
        ),
        (["--run.hang_timeout", "0"], ["run.hang_timeout=0", "above 0"]),
        (["--run.rendezvous_timeout", "-1"], ["run.rendezvous_timeout=-1", "above 0"]),
    ],
)
def test_what_cannot_work(
    insight: Callable[..., Outcome], workplace: Path, options: list[str], said: list[str]
) -> None:
    outcome = insight(*FIT, *options)
    assert outcome.code == 2, outcome.err
    for words in said:
        assert words in outcome.error_line
    assert not (workplace / "runs").exists()


def test_a_device_that_is_not_there(insight: Callable[..., Outcome]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    outcome = insight(*FIT, "--trainer.accelerator", "gpu")
    assert outcome.code == 2
    assert "trainer.accelerator=gpu: torch finds no such device here" in outcome.error_line


@pytest.mark.slow
def test_a_launcher_that_started_another_number(
    insight: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    outcome = insight(*FIT, "--trainer.devices", "4")
    assert outcome.code == 2
    assert "trainer.devices=4: srun started 1 on this machine" in outcome.error_line


@pytest.mark.slow
def test_a_global_batch_that_cannot_be_shared(
    insight: Callable[..., Outcome], workplace: Path, one_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before any process is started in vain: the position counts in steps of four sequences."""
    read: list[Path] = []
    monkeypatch.setattr(
        examine, "read_checkpoint", lambda path: (read.append(path), read_checkpoint(path))[1]
    )
    shutil.copytree(one_process, workplace / "runs/tiny/1")
    resume = (*FIT, "--resume", "auto", "--trainer.max_steps", "8")
    outcome = insight(*resume, "--data.batch_size", "3")
    assert outcome.code == 2
    assert "its steps take 4 sequences" in outcome.error_line
    assert "use --data.batch_size 4" in outcome.error_line
    read.clear()
    assert insight(*resume, "--data.batch_size", "2", "--trainer.accumulate_grad_batches", "2").code == 0
    assert len(read) == 1  # for network, tokenizer and position


def test_a_number_of_processes_that_does_not_divide_a_step(finished_run: Path) -> None:
    data = LanguageModelingDataModule("train.txt", batch_size=4, sequence_length=16)
    position = read_checkpoint(finished_run / "checkpoints/last.ckpt")["LanguageModelingDataModule"]
    with pytest.raises(
        CheckpointError, match=r"steps of 4 sequences cannot be shared by 3 .*use 1, 2, 4 proc"
    ):
        data.check_processes(position, 3, 1)
