from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from saving_always import save_always
from tiny_run import StopAt, TinyData, TinyModule, tiny_fit, weights
from warm_processes import kill, start_warm

from insight.callbacks.checkpointing import RunCheckpoint
from insight.checkpoints import writer
from insight.runtime.errors import ConfigError, OutputError

HERE = Path(__file__).parent


class Trace(Callback):
    """Everything a resumed run must repeat: loss, logging step and validation results by step."""

    def __init__(self) -> None:
        self.losses: dict[tuple[int, int], float] = {}
        self.validations: dict[int, float] = {}

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        key = (trainer.global_step, trainer.fit_loop.epoch_loop._batches_that_stepped)
        self.losses[key] = float(outputs["loss"])

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.validations[trainer.global_step] = float(trainer.callback_metrics["validation/bits_per_byte"])


def stop_and_resume(folder: Path, step: int, **options: Any) -> tuple[TinyModule, Trace]:
    with pytest.raises(RuntimeError, match="stopped"):
        tiny_fit(folder, [RunCheckpoint(every_n_steps=step), StopAt(step)], **options)
    trace = Trace()
    last = folder / "checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == step
    _, module = tiny_fit(folder, [RunCheckpoint(), trace], checkpoint=last, **options)
    return module, trace


WITHIN_EPOCHS: dict[str, Any] = {}
OVER_EPOCHS: dict[str, Any] = {"check_val_every_n_epoch": None, "val_check_interval": 7}
ACCUMULATING: dict[str, Any] = {"accumulate_grad_batches": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "step"),
    # In the middle of everything; at a validation; at the end of an epoch (20 batches).
    [
        *((WITHIN_EPOCHS, step) for step in (3, 10, 13, 20, 25)),
        *((OVER_EPOCHS, step) for step in (3, 7, 14, 20, 23)),
        *((ACCUMULATING, step) for step in (3, 5, 10, 12)),
    ],
)
def test_a_resumed_run_repeats_every_bit(tmp_path: Path, options: dict[str, Any], step: int) -> None:
    whole = Trace()
    _, module = tiny_fit(tmp_path / "whole", [RunCheckpoint(), whole], **options)
    resumed, trace = stop_and_resume(tmp_path / "resumed", step, **options)
    if not options.get("accumulate_grad_batches"):
        assert trace.losses == {key: loss for key, loss in whole.losses.items() if key[0] > step}
    assert trace.validations == {key: value for key, value in whole.validations.items() if key > step}
    for name, value in weights(module).items():
        assert torch.equal(value, weights(resumed)[name]), name


class LostCursor(TinyData):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.consumed = state_dict["num_samples_consumed"] - self.batch_size


class LostRandomState(TinyModule):
    def on_train_start(self) -> None:
        pass


@pytest.mark.parametrize("fault", ["cursor", "random state"])
def test_the_resume_test_notices(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = tiny_fit(tmp_path / "whole", [RunCheckpoint()])
    if fault == "random state":
        monkeypatch.setattr(TinyModule, "on_train_start", LostRandomState.on_train_start)
        resumed, _ = stop_and_resume(tmp_path / "resumed", 13)
    else:
        resumed, _ = stop_and_resume(tmp_path / "resumed", 13, data=LostCursor())
    assert any(not torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_best_is_the_best_and_last_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([3.0, 1.0, 2.0, float("nan"), 1.0])

    class Scripted(TinyModule):
        def on_validation_epoch_end(self) -> None:
            self.log("validation/scripted", next(values))

    monkeypatch.setattr("tiny_run.TinyModule", Scripted)
    checkpoint = RunCheckpoint(monitor="validation/scripted")
    trainer, _ = tiny_fit(tmp_path, [checkpoint], max_steps=50)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert torch.load(folder / "best.ckpt", weights_only=True)["global_step"] == 20
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 50
    assert (checkpoint.best_model_score, checkpoint.best_step) == (1.0, 20)
    assert trainer.checkpoint_callback is checkpoint
    assert Path(checkpoint.best_model_path) == folder / "best.ckpt"


def test_a_stale_metric_does_not_make_a_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class LogsOnce(TinyModule):
        def on_validation_epoch_end(self) -> None:
            if self.trainer.global_step == 10:
                self.log("validation/rare", 1.0)

    monkeypatch.setattr("tiny_run.TinyModule", LogsOnce)
    checkpoint = RunCheckpoint(monitor="validation/rare", mode="max")
    saves: list[bool] = []
    save = checkpoint._save

    def counted(trainer: Any, is_best: bool = False) -> None:
        saves.append(is_best)
        # An equal older value would not be better; a worse best must not let it through either.
        checkpoint._scores.entries = [(0.5, 10)]
        save(trainer, is_best)

    monkeypatch.setattr(checkpoint, "_save", counted)
    tiny_fit(tmp_path, [checkpoint])
    assert saves == [True, False, False]


def test_an_unknown_metric_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        tiny_fit(tmp_path, [RunCheckpoint(monitor="validation/bits_per_bite")])
    assert (error.value.option, error.value.value) == ("monitor", "validation/bits_per_bite")
    assert "'validation/bits_per_byte'" in error.value.remedy


def test_both_names_are_one_file_where_they_are_one_step(tmp_path: Path) -> None:
    tiny_fit(tmp_path, [RunCheckpoint()], max_steps=10)
    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    assert best.stat().st_ino == last.stat().st_ino
    tiny_fit(tmp_path, [RunCheckpoint()], last, max_steps=20)
    assert torch.load(last, weights_only=True)["global_step"] == 20


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(writer.os, "link", no_links)
    tiny_fit(tmp_path, [RunCheckpoint()], max_steps=10)
    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    assert best.read_bytes() == last.read_bytes()
    assert best.stat().st_ino != last.stat().st_ino


def test_the_best_is_remembered_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 2.0, 1.5])

    class Scripted(TinyModule):
        def on_validation_epoch_end(self) -> None:
            self.log("validation/scripted", next(values))

    monkeypatch.setattr("tiny_run.TinyModule", Scripted)
    monitor = "validation/scripted"
    last = tmp_path / "a/checkpoints/last.ckpt"
    tiny_fit(tmp_path / "a", [RunCheckpoint(monitor)], max_steps=20)
    checkpoint = RunCheckpoint(monitor)
    tiny_fit(tmp_path / "a", [checkpoint], checkpoint=last, max_steps=30)
    assert (checkpoint.best_model_score, checkpoint.best_step) == (1.0, 10)
    # Another folder has no best.ckpt yet: the first validation there makes one.
    values = iter([5.0])
    elsewhere = RunCheckpoint(monitor)
    tiny_fit(tmp_path / "b", [elsewhere], checkpoint=last, max_steps=40)
    assert (elsewhere.best_model_score, elsewhere.best_step) == (5.0, 40)
    assert (tmp_path / "b/checkpoints/best.ckpt").is_file()


@pytest.mark.slow
def test_a_failing_write_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files, in a process of its own: writes fail as on a full disk."""
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from lightning.pytorch import Callback
        from tiny_run import tiny_fit
        from insight.callbacks.checkpointing import RunCheckpoint
        from insight.runtime.errors import OutputError

        class Fill(Callback):
            def on_train_batch_start(self, trainer, module, batch, batch_idx):
                if trainer.global_step == 15:
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1))

        try:
            tiny_fit(Path(sys.argv[2]), [RunCheckpoint(), Fill()])
        except OutputError as error:
            print("refused:", error)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(HERE), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "refused:" in done.stdout, done.stderr
    message = done.stdout.split("refused:")[1].strip()
    assert "\n" not in message
    assert "cannot be written (File too large)" in message
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    for path in folder.iterdir():
        assert torch.load(path, weights_only=True)["global_step"] == 10


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer.os, "fsync", full)
    with pytest.raises(OutputError, match=r"checkpoints.*the disk is full"):
        tiny_fit(tmp_path, [RunCheckpoint()])
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(OutputError, match="checkpoints"):
        tiny_fit(tmp_path, [RunCheckpoint()])


def kill_while_saving(folder: Path, seconds_after_first_save: float, how: str = "atomic") -> None:
    """Start a run that saves all the time, and kill it some time after its first ``best.ckpt``."""
    best = folder / "checkpoints/best.ckpt"
    before = best.stat().st_mtime_ns if best.exists() else 0
    process = start_warm(save_always, folder, how)
    try:
        while process.is_alive() and not (best.exists() and best.stat().st_mtime_ns > before):
            time.sleep(0.01)
        time.sleep(seconds_after_first_save)
    finally:
        kill(process)


@pytest.mark.slow
def test_a_killed_save_never_leaves_a_torn_file(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for seconds in (0.1, 0.317, 0.483):
        kill_while_saving(tmp_path, seconds)
        for name in ("best.ckpt", "last.ckpt"):
            assert torch.load(folder / name, weights_only=True)["global_step"] > 0
    # What a killed save left behind is swept away by the next run.
    (folder / f"..new.ckpt.{'0a' * 8}.tmp").write_bytes(b"torn")
    tiny_fit(tmp_path, [RunCheckpoint()], max_steps=10)
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
def test_the_kill_test_notices_a_file_written_in_place(tmp_path: Path) -> None:
    kill_while_saving(tmp_path, 0.2, "in place")
    with pytest.raises((RuntimeError, EOFError)):
        torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
