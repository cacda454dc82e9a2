"""Time-outs of several processes count silence and not work, and one line says what happened."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome
from real_processes import PYTHON_INSIGHT, WARM_INSIGHT, ranks, started, wait_until_there

from insight.runtime.launching import meeting
from insight.runtime.launching.meeting import Meeting
from insight.runtime.launching.rank_watch import Point
from insight.runtime.processes import ProcessPlace, act_alone

FIT = ("fit", "--config", "tiny.yaml", "--trainer.accelerator", "cpu", "--data.batch_size", "2")
SECONDS = 10
SLOW_PARTS = f"""\
import time
from dataclasses import dataclass

from insight.data import ByteTokenizerConfig
from lightning.pytorch import Callback


@dataclass(frozen=True)
class SlowTokenizer(ByteTokenizerConfig):
    def build(self, texts):
        end = time.monotonic() + {SECONDS + 5}
        while time.monotonic() < end:
            sum(range(1_000_000))
            time.sleep(0.02)
        return super().build(texts)


class LongFarewell(Callback):
    def on_train_end(self, trainer, module):
        if trainer.is_global_zero:
            time.sleep({SECONDS + 5})


class Fails(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == 1:
            raise RuntimeError("planted in rank 1")
"""
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NAME": "train"}


@pytest.mark.slow
def test_slow_work_is_not_taken_for_a_hung_process(workplace: Path) -> None:
    """Neither a tokenizer that each process trains for itself, nor what the first does at the end."""
    (workplace / "slow_parts.py").write_text(SLOW_PARTS, encoding="utf-8")
    command = [
        *(*WARM_INSIGHT, *FIT, "--trainer.callbacks+", "slow_parts.LongFarewell"),
        *("--data.tokenizer", "slow_parts.SlowTokenizer"),
        *("--run.hang_timeout", str(SECONDS), "--run.rendezvous_timeout", str(SECONDS)),
    ]
    environments = [
        {**variables, "INSIGHT_CACHE_DIR": str(workplace / f"cache-{rank}")}
        for rank, variables in enumerate(ranks(2))
    ]
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(started(command, workplace, f"process-{rank}", environment))
            for rank, environment in enumerate(environments)
        ]
        first, second = (process.wait() for process in running)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "error" not in first.err + second.err
    assert "frame #" not in first.err + second.err
    # Both trained their tokenizers at the same time, not one after the other.
    assert time.monotonic() - begun < 4 * SECONDS + 60


@pytest.mark.slow
def test_a_killed_first_process_is_told_in_one_line(workplace: Path) -> None:
    options = ("--trainer.max_steps", "1000000", "--trainer.strategy", "ddp")
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                started([*PYTHON_INSIGHT, *FIT, *options], workplace, f"process-{rank}", variables)
            )
            for rank, variables in enumerate(ranks(2))
        ]
        wait_until_there(workplace / "runs/tiny/1/metrics.jsonl", running[0])
        running[0].process.send_signal(signal.SIGKILL)
        outcome = running[1].wait()
    assert outcome.code == 1, outcome.err
    said = [line for line in outcome.err.splitlines() if line.strip()]
    assert len(said) == 1, outcome.err
    assert said[0].startswith("insight: error: rank 0 is gone")
    assert "--resume auto" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before", "after", "nowhere"])
def test_debug_shows_the_traceback_of_any_process(workplace: Path, place: str) -> None:
    (workplace / "slow_parts.py").write_text(SLOW_PARTS, encoding="utf-8")
    command = [*FIT, "--trainer.devices", "2", "--trainer.callbacks+", "slow_parts.Fails"]
    if place != "nowhere":
        command.insert(0 if place == "before" else len(command), "--debug")
    with started([*PYTHON_INSIGHT, *command], workplace, place) as running:
        outcome = running.wait()
    assert outcome.code == 1, outcome.err
    assert "planted in rank 1" in outcome.err
    assert ("Traceback" in outcome.err and "slow_parts.py" in outcome.err) is (place != "nowhere")


@pytest.mark.slow
def test_variables_of_slurm_without_srun_are_named_at_once(
    insight: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "_SECONDS_UNTIL_SAID", 0.2)
    for name, value in {**SLURM, "SLURM_NTASKS_PER_NODE": "4"}.items():
        monkeypatch.setenv(name, value)
    outcome = insight(*FIT, "--run.rendezvous_timeout", "1")
    assert outcome.code == 2
    assert "waiting for the other processes: SLURM_NTASKS=4 asks for" in outcome.err.splitlines()[0]
    assert "waiting for ranks 1, 2, 3: SLURM_NTASKS=4 asks for" in outcome.err
    for words in ("SLURM_NTASKS=4", "with srun", "unset SLURM_NTASKS"):
        assert words in outcome.error_line
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    monkeypatch.setenv("SLURM_TASKS_PER_NODE", "2(x2)")
    outcome = insight(*FIT)
    assert outcome.code == 2
    assert "SLURM_NTASKS=4" in outcome.error_line
    assert "unset SLURM_NTASKS" in outcome.error_line


@pytest.mark.slow
@pytest.mark.parametrize("command", ["validate", "test", "predict", "generate"])
def test_commands_of_one_process_take_no_notice_of_slurm(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, insight: Callable[..., Outcome], command: str
) -> None:
    for name, value in {**SLURM, "SLURM_PROCID": "3", "SLURM_TASKS_PER_NODE": "2(x2)"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(finished_run.parents[2])
    more = {"predict": ["--data.predict_files", "test.txt"], "generate": ["It is"]}.get(command, [])
    outcome = insight(command, "--checkpoint", str(finished_run), *more)
    assert outcome.code == 0, outcome.err
    assert outcome.out


def test_a_process_that_works_shows_a_pulse_and_one_that_sleeps_does_not() -> None:
    """Work is a move in own code while training, and the use of a processor before and after it."""
    act_alone(False)
    leave, kinds = threading.Event(), {"sleeps": lambda: leave.wait(20), "works": lambda: _work(leave)}
    for name, task in kinds.items():
        leave.clear()
        stores: list[Meeting] = []

        def run(task: Callable[[], object] = task, stores: list[Meeting] = stores) -> None:
            stores.append(Meeting(ProcessPlace(0, 1, 0, 1), "127.0.0.1", 0, 20))
            stores[0].begin_training(1e6, Path(), lambda message: None)
            task()

        thread = threading.Thread(target=run)
        thread.start()
        while not stores:
            time.sleep(0.01)
        time.sleep(0.1)
        pulses = set()
        for _ in range(20):
            stores[0].reach(Point.READY)
            pulses.add(stores[0].state(0).pulse)
            time.sleep(0.01)
        leave.set()
        thread.join(20)
        stores[0].close()
        assert (len(pulses) > 3) is (name == "works"), name


def _work(leave: threading.Event) -> None:
    while not leave.is_set():
        sum(range(1000))
        max(range(1000))
