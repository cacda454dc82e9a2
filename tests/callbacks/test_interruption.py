"""Real signals to real processes, and the state that is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tiny_run import TinyData, TinyModule, tiny_fit, tiny_trainer, weights

from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.interruption import GracefulInterrupt, TrainingInterrupted

HERE = Path(__file__).parent

SLOW_RUN = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from lightning.pytorch import Callback
    from tiny_run import TinyModule, tiny_fit
    from insight.callbacks import GracefulInterrupt, RunCheckpoint

    class Slow(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            print("step", trainer.global_step, flush=True)
            for _ in range(int(sys.argv[3])):
                time.sleep(0.01)

    callbacks = [GracefulInterrupt(), Slow(), RunCheckpoint()]
    tiny_fit(Path(sys.argv[2]), callbacks, max_steps=10_000, val_check_interval=10)
""")


def start(folder: Path, hundredths_per_step: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        SLOW_RUN,
        str(HERE),
        str(folder),
        str(hundredths_per_step),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "step 12":
            return process
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "exit_code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_finishes_the_step_and_saves(
    tmp_path: Path, number: signal.Signals, exit_code: int, name: str
) -> None:
    process = start(tmp_path, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == exit_code, err
    assert "Traceback" not in err
    assert f"insight: {name}: finishing this step" in err
    last_started = int(out.split()[-1]) if out.strip() else 12
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == last_started + 1
    assert checkpoint["TinyData"]["num_samples_consumed"] == TinyData.batch_size * (last_started + 1)


class Interrupt(Callback):
    """Sends a signal to this process at a moment of a run."""

    def __init__(self, hook: str, step: int, times: int = 1) -> None:
        def send(trainer: Any, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step == step and not self.sent:
                self.sent = True
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

        self.sent = False
        setattr(self, hook, send)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "step", "stops_at"),
    [
        ("on_train_batch_start", 13, 14),
        ("on_train_batch_end", 13, 14),  # after GracefulInterrupt's own hook: one more step
        ("on_train_batch_start", 9, 10),  # a validation follows: it is finished first
        ("on_validation_batch_end", 10, 10),
        ("on_train_batch_end", 20, 20),  # the end of an epoch
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, hook: str, step: int, stops_at: int, accumulate: int
) -> None:
    options = {"accumulate_grad_batches": accumulate, "val_check_interval": 10 * accumulate}
    options |= {"check_val_every_n_epoch": None}
    _, whole = tiny_fit(tmp_path / "whole", [RunCheckpoint()], **options)
    interrupt = GracefulInterrupt()
    folder = tmp_path / "interrupted"
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted) as caught:
        tiny_fit(folder, [interrupt, Interrupt(hook, step), RunCheckpoint()], **options)
    assert signal.getsignal(signal.SIGINT) is handler
    assert caught.value.code == 130
    assert caught.value.step in (stops_at, stops_at - 1)
    last = folder / "checkpoints/last.ckpt"
    assert caught.value.checkpoint == str(last)
    assert torch.load(last, weights_only=True)["global_step"] == caught.value.step
    validations: list[int] = []

    class Watch(Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            validations.append(trainer.global_step)

    _, resumed = tiny_fit(folder, [RunCheckpoint(), Watch()], checkpoint=last, **options)
    assert validations == [at for at in (10, 20, 30) if at > caught.value.step]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_two_signals_abort_in_the_middle_of_a_step(tmp_path: Path) -> None:
    callbacks = [GracefulInterrupt(), Interrupt("on_train_batch_start", 13, times=2), RunCheckpoint()]
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted) as caught:
        tiny_fit(tmp_path, callbacks)
    assert caught.value.aborted
    assert caught.value.code == 130
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 10
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_measuring_alone_stops_at_the_next_batch(tmp_path: Path, stage: str) -> None:
    hook = "on_validation_batch_start" if stage == "validate" else "on_test_batch_start"
    trainer = tiny_trainer(tmp_path, [GracefulInterrupt(), Interrupt(hook, 0)])
    with pytest.raises(TrainingInterrupted):
        getattr(trainer, stage)(TinyModule(), datamodule=TinyData(num_validation_batches=50))
    assert not (tmp_path / "checkpoints").exists()


def test_handlers_are_given_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    tiny_fit(tmp_path, [GracefulInterrupt()])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_it_works_outside_the_main_thread(tmp_path: Path) -> None:
    steps: list[int] = []
    thread = threading.Thread(
        target=lambda: steps.append(tiny_fit(tmp_path, [GracefulInterrupt()])[0].global_step)
    )
    thread.start()
    thread.join(60)
    assert steps == [30]


class AfterTraining(Callback):
    """A long work at the end, which a signal interrupts."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_finished = False

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(5)
        self.is_finished = True


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_after_training_leaves_out_what_follows(tmp_path: Path, number: int, code: int) -> None:
    work = AfterTraining(number)
    with pytest.raises(TrainingInterrupted) as interruption:
        tiny_fit(tmp_path, [GracefulInterrupt(), work, RunCheckpoint()])
    assert (interruption.value.code, interruption.value.after_training) == (code, True)
    assert "after training" in str(interruption.value)
    assert not work.is_finished
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 30


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("on_train_batch_start", "finishing this step, then saving and stopping"),
        ("on_validation_batch_start", "finishing this validation, then saving and stopping"),
    ],
)
def test_a_signal_is_answered_by_what_happens_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], moment: str, words: str
) -> None:
    asked = Callback()
    setattr(asked, moment, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingInterrupted):
        tiny_fit(tmp_path, [GracefulInterrupt(), asked, RunCheckpoint()])
    assert words in capsys.readouterr().err
