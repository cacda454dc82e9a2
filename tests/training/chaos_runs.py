"""A short training that is killed again and again, and resumed every time.

One process imports everything once and forks each attempt, which then begins in a fraction of a second. By
hand: ``OMP_NUM_THREADS=1 python tests/training/chaos_runs.py FOLDER one:30:1:none`` writes its counts into
``FOLDER/counts.json``; a plan is ``NAME:KILLS:PROCESSES:FAULT`` or ``NAME:KILLS:PROCESSES:FAULT:STRATEGY``.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import lightning.pytorch as pl
import torch
from tiny_training import make_module, make_trainer, text_file

from insight.callbacks import RunCheckpoint
from insight.checkpoints import writer
from insight.data import ByteTokenizerConfig, LanguageModelingDataModule
from insight.runtime import files
from insight.runtime.errors import CheckpointError
from insight.runtime.run_folder import RunFolder, find_resumable, is_complete
from insight.runtime.seeding import seed_everything
from insight.training import MuonAdamW, step

NUM_STEPS = 24
_STARTUP_SECONDS = 120
_ENDING_SECONDS = 60
_MOST_ATTEMPTS = 60
COMPARED = ("state_dict", "optimizer_states", "global_step", "LanguageModelingDataModule")


@dataclass(frozen=True)
class Attempt:
    """One start of the training.

    Args:
        folder: Where text, cache and runs are.
        run: The run.
        number: Of the attempt.
        num_ranks: Processes.
        strategy: Of the Trainer, where there are several.
        asynchronous: Save beside the training.
        stop_at: The moment of its saves at which the first process stops and waits to be killed: the name of
            the moment, and how many of them to let pass; ``None`` for nowhere.
        fault: What is broken on purpose: ``none``, ``in place``, ``random state`` or ``full disk``.
    """

    folder: Path
    run: RunFolder
    number: int
    num_ranks: int
    strategy: str
    asynchronous: bool
    stop_at: tuple[str, int] | None
    fault: str

    def progress_path(self, rank: int) -> Path:
        """What a process tells the one that started it, a line at a time."""
        return self.run.path / f"progress-{self.number}-{rank}.txt"

    def progress(self, rank: int) -> list[str]:
        """The lines so far."""
        path = self.progress_path(rank)
        return path.read_text().splitlines() if path.exists() else []


# ---------------------------------------------------------------------- in the forked processes


class Progress(pl.Callback):
    """Says where the run began, and each optimizer step."""

    def __init__(self, path: Path) -> None:
        self.path, self.step = path, 0

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.step = trainer.global_step
        say(self.path, f"from {self.step}")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            say(self.path, f"step {self.step}")


def say(path: Path, line: str) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def train(attempt: Attempt, rank: int, port: int) -> None:
    """One process of an attempt."""
    if attempt.num_ranks > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "chaos",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(attempt.num_ranks),
            "LOCAL_WORLD_SIZE": str(attempt.num_ranks),
            "GROUP_RANK": "0",
            "GLOO_SOCKET_IFNAME": "lo",
        }
    if rank == 0:
        stop_in_saves(attempt)
    if attempt.fault == "random state":
        step.restore_random_states = lambda *_: None
    try:
        checkpoint = find_resumable("auto", attempt.run.path.parent.parent, attempt.run.path.parent.name)
    except CheckpointError:
        checkpoint = None  # killed before the first one
    seed_everything(1)
    options: dict[str, Any] = {"devices": attempt.num_ranks}
    if attempt.num_ranks > 1:
        options["strategy"] = attempt.strategy
    trainer = make_trainer(
        attempt.run.path,
        NUM_STEPS,
        callbacks=[
            Progress(attempt.progress_path(rank)),
            RunCheckpoint(every_n_steps=1, asynchronous=attempt.asynchronous),
        ],
        enable_checkpointing=True,
        accumulate_grad_batches=2,
        val_check_interval=10,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        **options,
    )
    trainer.fit(
        make_module(dropout=0.2, optimizer=MuonAdamW(precision="float32")),
        make_data(attempt.folder, attempt.num_ranks),
        ckpt_path=checkpoint,
        weights_only=True,
    )


def make_data(folder: Path, num_ranks: int) -> LanguageModelingDataModule:
    return LanguageModelingDataModule(
        str(folder / "text.txt"),
        tokenizer=ByteTokenizerConfig(),
        cache_dir=str(folder / "cache"),
        sequence_length=32,
        batch_size=4 // num_ranks,
        validation_fraction=0.2,
    )


def stop_in_saves(attempt: Attempt) -> None:
    """Let the process stop for good at one moment of a save: half written, or before a name appears."""
    path, passed = attempt.progress_path(0), Counter[str]()

    def pass_moment(name: str) -> None:
        if (name, passed[name]) == attempt.stop_at:
            say(path, "saving")
            time.sleep(_ENDING_SECONDS * 2)
        passed[name] += 1

    class Halfway:
        """A file that passes a moment after its first bytes."""

        def __init__(self, file: BinaryIO) -> None:
            self.file, self.has_passed = file, False

        def write(self, data: Any) -> int:
            written = self.file.write(data)
            if not self.has_passed:
                self.has_passed = True
                self.file.flush()
                pass_moment("half written")
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    save, replace = torch.save, os.replace

    def replace_after_moment(source: Any, target: Any) -> None:
        if Path(target).parent == attempt.run.checkpoints:
            pass_moment("before a name")
        replace(source, target)

    def copy_in_place(source: Path, target: Path) -> None:
        data = source.read_bytes()
        with target.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            pass_moment("before a name")
            file.write(data[len(data) // 2 :])

    def save_halfway(checkpoint: Any, file: BinaryIO, **options: Any) -> None:
        if options:  # a tensor is pickled for the other processes
            save(checkpoint, file, **options)
            return
        if attempt.fault == "full disk" and checkpoint["global_step"] == NUM_STEPS // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, Halfway(file))

    torch.save = save_halfway
    files.os.replace = replace_after_moment
    if attempt.fault == "in place":
        writer.publish_copy = copy_in_place


def fork(attempt: Attempt, rank: int, port: int) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        train(attempt, rank, port)
        code = 0
    except BaseException:
        say(attempt.run.path / "errors.txt", traceback.format_exc())
    finally:
        os._exit(code)


# ---------------------------------------------------------------------- in the process that kills


class Processes:
    """The processes of an attempt.

    Attributes:
        running: Those that have not ended.
        failed: Whether one ended in an error.
    """

    def __init__(self, attempt: Attempt) -> None:
        port = free_port()
        self.attempt = attempt
        self.running = [fork(attempt, rank, port) for rank in range(attempt.num_ranks)]
        self.failed = False

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait until ``condition`` holds, a process ends or the time is over; returns whether it holds."""
        num_running, end = len(self.running), time.monotonic() + seconds
        while time.monotonic() < end and len(self.running) == num_running:
            if condition():
                return True
            time.sleep(0.002)
            for process in list(self.running):
                done, status = os.waitpid(process, os.WNOHANG)
                if done:
                    self.running.remove(process)
                    self.failed |= status != 0
        return bool(condition())

    def wait_for_end(self, seconds: float = _ENDING_SECONDS) -> int:
        """Wait until all have ended, and kill those that do not, as a launcher does; returns how many did."""
        num_running, end = len(self.running), time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            self.wait(lambda: False, end - time.monotonic())
        num_stuck = len(self.running)
        self.kill(self.running)
        return num_running - num_stuck

    def kill(self, victims: list[int]) -> None:
        """End some at once, as if the machine had gone."""
        for process in list(victims):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            self.running.remove(process)

    def check(self) -> None:
        """Processes that nobody killed do not fail."""
        path = self.attempt.run.path / "errors.txt"
        assert not self.failed, path.read_text() if path.exists() else "a process ended without a word"


class Chaos:
    """Trains, kills, resumes and counts.

    Args:
        folder: An empty folder.
        num_ranks: Processes of the training.
        fault: What is broken on purpose.
        strategy: Of the Trainer, where there are several processes.
    """

    def __init__(self, folder: Path, num_ranks: int, fault: str, strategy: str = "ddp") -> None:
        self.folder, self.num_ranks, self.fault, self.strategy = folder, num_ranks, fault, strategy
        self.random = random.Random(0)
        self.counts: Counter[str] = Counter()
        self.num_attempts = 0
        folder.mkdir(parents=True, exist_ok=True)
        text_file(folder)

    def run(self, num_kills: int) -> dict[str, int]:
        """Kill at least ``num_kills`` times, and let every training come to its end."""
        expected, seconds = self.uninterrupted()
        while self.counts["kills"] < num_kills and not self.counts["torn"]:
            run = RunFolder.create(self.folder / "runs", f"killed-{self.counts['trainings']}")
            if not self.until_the_end(run, num_kills, seconds):
                break
            self.counts["trainings"] += 1
            same = equal(expected, state(run.checkpoints / "last.ckpt"))
            self.counts["identical" if same else "different"] += 1
        return dict(self.counts)

    def fill_disk(self) -> dict[str, Any]:
        """How the processes end when the first cannot write in the middle of a training."""
        run = RunFolder.create(self.folder / "runs", "full")
        num_ended = Processes(self.attempt(run, stop_at=None)).wait_for_end()
        errors = (run.path / "errors.txt").read_text()
        step = step_of(run.checkpoints / "last.ckpt")
        return {"ended by themselves": num_ended, "errors": errors, "step": step}

    def uninterrupted(self) -> tuple[dict[str, Any], float]:
        """The state at the end of a training that nobody kills, and how long its steps took."""
        run = RunFolder.create(self.folder / "runs", "whole")
        attempt = self.attempt(run, stop_at=None)
        processes = Processes(attempt)
        processes.wait(lambda: attempt.progress(0), _STARTUP_SECONDS)
        started = time.monotonic()
        processes.wait_for_end()
        processes.check()
        return state(run.checkpoints / "last.ckpt"), time.monotonic() - started

    def until_the_end(self, run: RunFolder, num_kills: int, seconds: float) -> bool:
        """Start, kill and resume until a training ends by itself; false where a torn file was found."""
        step = 0
        for _ in range(_MOST_ATTEMPTS):
            kind = self.next_kind(num_kills)
            # A run that is nearly done may have fewer moments left; then it comes to its end.
            stop_at = (self.next_moment(), self.random.randrange(1, 20)) if kind == "save" else None
            attempt = self.attempt(run, stop_at)
            was_killed = self.kill(attempt, kind, self.random.uniform(0, seconds))
            self.count_steps(attempt, step)
            if not was_killed:
                return True
            self.counts["half-written files left behind"] += bool(list(run.checkpoints.glob(".*.tmp")))
            paths = [path for path in run.checkpoints.glob("*.ckpt") if not path.name.startswith(".")]
            self.counts["torn"] += not all(map(is_complete, paths))
            if self.counts["torn"]:
                return False
            newest = run.find_newest_checkpoint()
            step_before, step = step, 0 if newest is None else step_of(newest)
            assert step >= step_before, f"step {step_before} was on the disk, now it is {step}"
        raise AssertionError("the training never came to its end")

    def next_kind(self, num_kills: int) -> str:
        """At any time, during a save, or one of two processes at any time, in turn."""
        if self.counts["kills"] >= num_kills:
            return "none"
        kinds = ["save", "any"] + ["one rank"] * (self.num_ranks > 1)
        return "save" if self.fault != "none" else kinds[self.counts["kills"] % len(kinds)]

    def next_moment(self) -> str:
        return ("half written", "before a name")[self.counts["kills: save"] % 2]

    def attempt(self, run: RunFolder, stop_at: tuple[str, int] | None) -> Attempt:
        self.num_attempts += 1
        asynchronous = self.random.random() < 0.5
        return Attempt(
            self.folder,
            run,
            self.num_attempts,
            self.num_ranks,
            self.strategy,
            asynchronous,
            stop_at,
            self.fault,
        )

    def kill(self, attempt: Attempt, kind: str, delay: float) -> bool:
        """Start, and kill as planned unless the training ends before; returns whether anybody was killed."""
        processes = Processes(attempt)
        processes.wait(lambda: attempt.progress(0), _STARTUP_SECONDS)
        if kind == "save":
            processes.wait(lambda: "saving" in attempt.progress(0), _ENDING_SECONDS)
        elif kind != "none":
            processes.wait(lambda: False, delay)
        if kind == "none" or len(processes.running) < self.num_ranks:  # it has come to its end
            processes.wait_for_end()
            processes.check()
            return False
        self.counts["kills"] += 1
        self.counts[f"kills: {kind}"] += 1
        self.counts["kills while saving asynchronously"] += attempt.asynchronous and kind == "save"
        one = [self.random.choice(processes.running)]
        processes.kill(one if kind == "one rank" else processes.running)
        self.counts["others that ended by themselves"] += processes.wait_for_end()
        return True

    def count_steps(self, attempt: Attempt, step_of_checkpoint: int) -> None:
        """A resumed process begins where the checkpoint was, and trains."""
        lines = attempt.progress(0)
        if not lines:
            assert step_of_checkpoint == NUM_STEPS, "nothing was trained"
            return
        begun = int(lines[0].split()[1])
        assert begun == step_of_checkpoint, f"begun at {begun}, not at {step_of_checkpoint}"
        steps = [int(line.split()[1]) for line in lines if line.startswith("step ")]
        assert steps == list(range(begun + 1, begun + 1 + len(steps)))
        self.counts["resumes"] += begun > 0
        self.counts["resumed steps"] += len(steps) if begun else 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def state(path: Path) -> dict[str, Any]:
    checkpoint = torch.load(path, weights_only=True)
    return {name: checkpoint[name] for name in COMPARED} | {"random": checkpoint["insight"]["random_states"]}


def equal(first: Any, second: Any) -> bool:
    """Bit for bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, *plans = sys.argv[1:]
    results: dict[str, Any] = {}
    for plan in plans:
        name, kills, ranks, fault, *strategy = plan.split(":")
        chaos = Chaos(Path(place) / name, int(ranks), fault, *strategy)
        results[name] = chaos.fill_disk() if fault == "full disk" else chaos.run(int(kills))
    (Path(place) / "counts.json").write_text(json.dumps(results, indent=2))
