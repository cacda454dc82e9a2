"""Time limit and signals of a scheduler: one place to stop, exit code 143, nothing lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.trainer.connectors import signal_connector
from tiny_run import TinyData, TinyModule, tiny_fit, weights

from insight.callbacks import GracefulInterrupt, RunCheckpoint, TrainingInterrupted, interruption
from insight.runtime.errors import ConfigError


class Send(Callback):
    """Sends signals to this process in the middle of a step."""

    def __init__(self, step: int, *numbers: signal.Signals) -> None:
        self.step, self.numbers = step, numbers

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGUSR1,),
        (signal.SIGTERM, signal.SIGTERM),  # a launcher passes on what the scheduler has sent to all
        (signal.SIGUSR1, signal.SIGTERM),  # the limit itself comes while the step is being finished
    ],
)
def test_signals_of_a_scheduler_finish_the_step(tmp_path: Path, numbers: tuple[signal.Signals, ...]) -> None:
    handlers = [signal.getsignal(number) for number in numbers]
    with pytest.raises(TrainingInterrupted) as caught:
        tiny_fit(tmp_path, [GracefulInterrupt(), Send(13, *numbers), RunCheckpoint()])
    assert caught.value.code == 143
    assert not caught.value.aborted
    assert str(caught.value) == f"interrupted by {numbers[0].name} at step 14"
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 14
    assert [signal.getsignal(number) for number in numbers] == handlers


def test_a_signal_that_lightning_took_is_not_lost(tmp_path: Path) -> None:
    """Its handler is in place for a moment before ours, and would end the process with 0 and save nothing."""

    class Early(Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            trainer._signal_connector.received_sigterm = True

    with pytest.raises(TrainingInterrupted) as caught:
        tiny_fit(tmp_path, [Early(), GracefulInterrupt(), RunCheckpoint()])
    assert caught.value.code == 143
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("is_ours", [True, False])
def test_lightnings_own_requeueing_keeps_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    """Without the callback it saves to a file of its own in the middle of a step, and calls SLURM."""
    for name, value in {"NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name, value in {"NODEID": "0", "JOB_ID": "7", "NODELIST": "here", "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    calls: list[Any] = []
    monkeypatch.setattr(signal_connector, "call", lambda command, **_: calls.append(command) or 0)
    callbacks = [Send(13, signal.SIGUSR1), RunCheckpoint()]
    environment = SLURMEnvironment(auto_requeue=True)
    if is_ours:
        with pytest.raises(TrainingInterrupted) as caught:
            tiny_fit(tmp_path, [GracefulInterrupt(), *callbacks], plugins=[environment])
        assert caught.value.code == 143
    else:
        tiny_fit(tmp_path, callbacks, plugins=[environment])
    assert calls == ([] if is_ours else [["scontrol", "requeue", "7"]])
    assert bool(list(tmp_path.glob("hpc_ckpt*"))) is not is_ours


class Clock:
    """Passes one second a step."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Tick(Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.clock.now += 1


def test_a_time_limit_saves_and_can_be_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it takes, with the same weights in the end, and no step that is not trained."""
    _, whole = tiny_fit(tmp_path / "whole", [RunCheckpoint()])
    clock = Clock()
    monkeypatch.setattr(interruption, "time", types.SimpleNamespace(monotonic=clock, time=clock))
    folder, checkpoint = tmp_path / "limited", None

    def start() -> TinyModule:
        limit = GracefulInterrupt(time_limit=12.5, include_startup=False)
        return tiny_fit(folder, [limit, Tick(clock), RunCheckpoint()], checkpoint=checkpoint)[1]

    for step in (13, 26):
        with pytest.raises(TrainingInterrupted) as caught:
            start()
        assert caught.value.code == 143
        assert str(caught.value) == f"interrupted by the time limit at step {step}"
        checkpoint = Path(caught.value.checkpoint)
    resumed = start()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_a_limit_that_is_over_before_the_start_ends_after_one_step(tmp_path: Path) -> None:
    """This process is older than the limit; each start makes progress all the same."""
    with pytest.raises(TrainingInterrupted) as caught:
        tiny_fit(tmp_path, [GracefulInterrupt(time_limit=1e-3), RunCheckpoint()])
    assert caught.value.step == 1


def test_a_limit_has_to_be_positive() -> None:
    with pytest.raises(ConfigError) as error:
        GracefulInterrupt(time_limit=0.0)
    assert (error.value.option, error.value.value) == ("time_limit", 0.0)


def test_a_signal_during_the_agreement_waits_for_the_next() -> None:
    """Most of the time of a fast step is spent there; the others have been told "no" for this step."""
    interrupt = GracefulInterrupt()

    def reduce(own: torch.Tensor, reduce_op: str) -> torch.Tensor:
        if not interrupt.requested:
            interrupt._handle(signal.SIGUSR1, None)
        return own

    strategy = types.SimpleNamespace(root_device="cpu", reduce=reduce)
    trainer: Any = types.SimpleNamespace(world_size=2, strategy=strategy)
    assert not interrupt._everyone_agrees(trainer)
    assert interrupt._everyone_agrees(trainer)
    assert interrupt.requested == signal.SIGUSR1


class TellOne(Callback):
    """Only the second of two processes is told to end, in the middle of a step."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 13:
            os.kill(os.getpid(), signal.SIGUSR1)


class NoteSaves(Callback):
    """Notes when this process takes part in saving."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: Any) -> None:
        self.steps.append(trainer.global_step)


def own_wish(self: GracefulInterrupt, trainer: Any) -> bool:
    return self.requested is not None


def run_one(folder: Path, fault: str) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    saves, outcome = NoteSaves(), {"reason": "", "step": -1}
    callbacks: list[Callback] = [GracefulInterrupt(), TellOne(), saves]
    if fault == "none":
        callbacks.append(RunCheckpoint())
    else:  # and nothing that would have one process wait for the other
        GracefulInterrupt._everyone_agrees = own_wish  # type: ignore[method-assign]
    try:
        tiny_fit(folder, callbacks, devices=2, strategy="ddp")
    except TrainingInterrupted as interrupted:
        outcome = {"reason": str(interrupted), "step": interrupted.step}
        raise
    finally:
        rank = os.environ.get("LOCAL_RANK", "0")
        (folder / f"{rank}.json").write_text(json.dumps({**outcome, "saves": saves.steps}))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "no agreement"])
def test_one_signal_stops_all_processes_after_the_same_step(tmp_path: Path, fault: str) -> None:
    """With the planted fault, each process looks at its own wish only: the second leaves the first alone."""
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path), fault]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        err = process.communicate(timeout=240)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert second["reason"] == "interrupted by SIGUSR1 at step 14", err[-3000:]
    if fault == "none":
        assert process.returncode == 143, err[-3000:]
        assert first == second
        assert first["saves"][-1] == 14
        last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
        assert last["global_step"] == 14
        assert last["TinyData"]["num_samples_consumed"] == 14 * TinyData.batch_size
    else:
        assert process.returncode != 143
        assert first["step"] == -1


if __name__ == "__main__":
    run_one(Path(sys.argv[1]), sys.argv[2])
