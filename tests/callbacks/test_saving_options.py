"""Saving beside the training, keeping several, copying elsewhere: each file as complete as otherwise."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from lightning.pytorch import Callback
from tiny_run import StopAt, TinyModule, tiny_fit

from insight.callbacks import (
    GracefulInterrupt,
    TrainingInterrupted,
)
from insight.callbacks.checkpointing import RunCheckpoint
from insight.checkpoints import writer
from insight.checkpoints.writer import CheckpointWriter, host_copy, write_file
from insight.runtime.errors import OutputError
from insight.runtime.run_folder import RunFolder, find_resumable


def contents(folder: Path) -> dict[str, int]:
    """Names and steps of the checkpoints of a run."""
    paths = (folder / "checkpoints").iterdir()
    return {path.name: torch.load(path, weights_only=True)["global_step"] for path in sorted(paths)}


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def script(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let the validations of the next runs measure these."""
    left = iter(values)

    class Scripted(TinyModule):
        def on_validation_epoch_end(self) -> None:
            self.log("validation/scripted", next(left))

    monkeypatch.setattr("tiny_run.TinyModule", Scripted)


# ---------------------------------------------------------------------- asynchronous


class SlowDisk(Callback):
    """Holds every write back until training is two steps further."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_further = threading.Event()
        slow = self

        def slow_write(checkpoint: dict[str, Any], path: Path) -> None:
            assert slow.is_further.wait(60)
            slow.is_further.clear()
            write_file(checkpoint, path)

        monkeypatch.setattr(writer, "write_file", slow_write)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step > 5 and trainer.global_step % 5 == 2:
            self.is_further.set()

    def on_train_end(self, *args: Any) -> None:
        self.is_further.set()


@pytest.mark.parametrize("has_copy", [True, False])
def test_the_state_is_that_of_its_step_although_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_copy: bool
) -> None:
    """With the planted fault, what is written is the state that training changes meanwhile."""
    options: dict[str, Any] = {"val_check_interval": 20, "max_steps": 24}
    tiny_fit(tmp_path / "now", [RunCheckpoint(keep_every_n_steps=5)], **options)
    if not has_copy:
        monkeypatch.setattr(writer, "host_copy", lambda checkpoint, earlier: checkpoint)
    slow = [SlowDisk(monkeypatch), RunCheckpoint(keep_every_n_steps=5, asynchronous=True)]
    tiny_fit(tmp_path / "later", slow, **options)
    assert contents(tmp_path / "later") == contents(tmp_path / "now")
    same = []
    for path in (tmp_path / "now/checkpoints").iterdir():
        other = torch.load(tmp_path / "later/checkpoints" / path.name, weights_only=True)
        same.append(equal(torch.load(path, weights_only=True), other))
    assert all(same) is has_copy


@pytest.mark.parametrize("step", [5, 24])
def test_a_write_that_fails_ends_the_run_at_the_next_save_or_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def full_disk(checkpoint: dict[str, Any], path: Path) -> None:
        if checkpoint["global_step"] >= step:
            raise OutputError(f"step {step} does not fit", "free some space")
        write_file(checkpoint, path)

    monkeypatch.setattr(writer, "write_file", full_disk)
    saving = RunCheckpoint(every_n_steps=5, asynchronous=True)
    trainer_steps: list[int] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            trainer_steps.append(trainer.global_step)

    with pytest.raises(OutputError, match=f"step {step} does not fit"):
        tiny_fit(tmp_path, [Watch(), saving], max_steps=24, val_check_interval=20)
    assert trainer_steps[-1] == {5: 10, 24: 24}[step]
    if step == 24:
        assert contents(tmp_path) == {"best.ckpt": 20, "last.ckpt": 20}


@pytest.mark.parametrize("waits", [True, False])
def test_a_run_that_ends_early_waits_for_its_last_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """With the planted fault nobody waits, and the file is not there when the run has ended."""
    may_write = threading.Event()

    def held_back(checkpoint: dict[str, Any], path: Path) -> None:
        assert may_write.wait(60)
        write_file(checkpoint, path)

    monkeypatch.setattr(writer, "write_file", held_back)
    saving = RunCheckpoint(every_n_steps=5, asynchronous=True)
    if waits:
        threading.Timer(0.3, may_write.set).start()
    else:
        monkeypatch.setattr(saving, "on_exception", lambda *_: None)
    with pytest.raises(RuntimeError, match="stopped"):
        tiny_fit(tmp_path, [saving, StopAt(7)])
    last = tmp_path / "checkpoints/last.ckpt"
    assert last.is_file() is waits
    may_write.set()
    saving._close()
    assert torch.load(last, weights_only=True)["global_step"] == 5


def test_an_interrupted_run_waits_for_its_last_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 13:
                os.kill(os.getpid(), signal.SIGTERM)

    def slow(checkpoint: dict[str, Any], path: Path) -> None:
        time.sleep(0.3)
        write_file(checkpoint, path)

    monkeypatch.setattr(writer, "write_file", slow)
    with pytest.raises(TrainingInterrupted) as interruption:
        tiny_fit(tmp_path, [GracefulInterrupt(), Asked(), RunCheckpoint(asynchronous=True)])
    assert interruption.value.code == 143
    assert contents(tmp_path)["last.ckpt"] == 14


def test_an_interrupted_run_whose_last_write_fails_does_not_ask_to_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 13:
                os.kill(os.getpid(), signal.SIGTERM)

    def full_disk(checkpoint: dict[str, Any], path: Path) -> None:
        raise OutputError("it does not fit", "free some space")

    monkeypatch.setattr(writer, "write_file", full_disk)
    saving = RunCheckpoint(asynchronous=True, at_validation=False)
    with pytest.raises(OutputError, match="it does not fit"):
        tiny_fit(tmp_path, [GracefulInterrupt(), Asked(), saving], val_check_interval=20)


def test_a_copy_keeps_tied_tensors_tied_and_shares_nothing() -> None:
    weight = torch.randn(4, 3)
    state = {"a": weight, "b": [weight.detach(), {"part": weight[:2]}], "n": 3, "text": "x", "none": None}
    copy = host_copy(state, [])
    assert copy["a"] is copy["b"][0]
    assert equal(copy, state)
    weight.zero_()
    assert not equal(copy["a"], state["a"])
    assert not equal(copy["b"][1]["part"], state["b"][1]["part"])


def test_the_next_copy_takes_the_memory_of_the_last() -> None:
    """Also where another tensor has come, one has gone, and two are of one shape."""
    state: dict[str, Any] = {"a": torch.randn(4, 3), "b": torch.randn(4, 3), "t": torch.randn(3, 4).T}
    copies: list[torch.Tensor] = []
    host_copy(state, copies)
    places = {tensor.data_ptr() for tensor in copies}
    assert len(places) == 3
    state["a"].add_(1)
    again = host_copy(state, copies)
    assert equal(again, state)
    assert {tensor.data_ptr() for tensor in copies} == places
    other = {"a": torch.randn(4, 3), "c": torch.randn(5)}
    assert equal(host_copy(other, copies), other)
    assert len(copies) == 2
    assert len(places & {tensor.data_ptr() for tensor in copies}) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_copy_of_what_a_gpu_holds_is_complete() -> None:
    state = {"large": torch.randn(4096, 4096, device="cuda"), "small": torch.randn(3, device="cuda")}
    expected = {name: tensor.cpu() for name, tensor in state.items()}
    copy = host_copy(state, [])
    state["large"].zero_()
    assert copy["large"].is_pinned()
    assert equal(copy, expected)


@dataclass(frozen=True)
class Watched:
    value: int


def test_whatever_torch_saves_is_saved(tmp_path: Path) -> None:
    strange = {
        "numbers": range(3),
        "own": Watched(1),
        "sparse": torch.eye(3).to_sparse(),
        "large": torch.ones(9_000_000),
        "nested": [{"empty": (torch.zeros(2, 0),)}],
    }
    write_file(strange, tmp_path / "strange.ckpt")
    loaded = torch.load(tmp_path / "strange.ckpt", weights_only=False)
    assert loaded["numbers"] == range(3)
    assert loaded["own"] == Watched(1)
    assert torch.equal(loaded["sparse"].to_dense(), torch.eye(3))
    assert torch.equal(loaded["large"], strange["large"])


def test_priority_that_may_not_be_changed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", denied)
    done: list[int] = []
    background = CheckpointWriter(tmp_path)
    background.submit(lambda: done.append(1))
    background.close()
    assert done == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own")
def test_who_writes_leaves_the_processors_to_the_training(tmp_path: Path) -> None:
    found: list[int] = []
    background = CheckpointWriter(tmp_path)
    background.submit(lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    background.close()
    assert found == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19


ENDS_AT_ONCE = """
import sys, time
from pathlib import Path
import torch
from insight.checkpoints.writer import CheckpointWriter, write_checkpoint

def job():
    time.sleep(1)
    for number in range(2):
        checkpoint = {"weight": torch.full((12_000_000,), number)}
        write_checkpoint(checkpoint, Path(sys.argv[1]), ["last.ckpt"], None)

CheckpointWriter(Path(sys.argv[1])).submit(job)
"""


@pytest.mark.slow
def test_a_program_that_ends_meanwhile_ends_after_its_last_file(tmp_path: Path) -> None:
    """When no thread can be started any more, be it to write or to give an earlier file back."""
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_AT_ONCE, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["weight"].unique().tolist() == [1]


def test_no_checksums_that_nobody_looks_at(tmp_path: Path) -> None:
    """They took most of the time of a save. What others save afterwards has them."""
    state = {"weight": torch.arange(1000.0), "step": 3}
    write_file(state, tmp_path / "ours.ckpt")
    torch.save(state, tmp_path / "usual.ckpt")
    assert equal(torch.load(tmp_path / "ours.ckpt", weights_only=True), state)
    ours, usual = (
        {entry.CRC for entry in zipfile.ZipFile(tmp_path / f"{name}.ckpt").infolist()}
        for name in ("ours", "usual")
    )
    assert ours == {0}
    assert len(usual) > 2


# ---------------------------------------------------------------------- keeping several


def test_the_best_are_kept_also_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, 3.0, 1.0, float("nan"), 2.0, 0.5)
    first = RunCheckpoint("validation/scripted", keep_best=2)
    tiny_fit(tmp_path, [first], max_steps=50)
    kept = {"best-00000020.ckpt": 20, "best-00000050.ckpt": 50, "best.ckpt": 50, "last.ckpt": 50}
    assert contents(tmp_path) == kept
    links = [(tmp_path / "checkpoints" / name).stat().st_ino for name in ("best-00000050.ckpt", "best.ckpt")]
    assert links[0] == links[1]
    script(monkeypatch, 0.7, 0.6)
    again = RunCheckpoint("validation/scripted", keep_best=2)
    tiny_fit(tmp_path, [again], checkpoint=tmp_path / "checkpoints/last.ckpt", max_steps=70)
    assert (again.best_model_score, again.best_step) == (0.5, 50)
    kept = {"best-00000050.ckpt": 50, "best-00000070.ckpt": 70, "best.ckpt": 50, "last.ckpt": 70}
    assert contents(tmp_path) == kept


@pytest.mark.parametrize(("mode", "best", "kept"), [("min", 30, {20, 30}), ("max", 10, {10, 40})])
def test_which_are_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, best: int, kept: set[int]
) -> None:
    script(monkeypatch, 4.0, 2.0, 1.0, 3.0, 2.0)
    tiny_fit(tmp_path, [RunCheckpoint("validation/scripted", mode, keep_best=2)], max_steps=50)
    found = contents(tmp_path)
    assert found["best.ckpt"] == best
    assert {step for name, step in found.items() if name.startswith("best-")} == kept


def test_kept_steps_are_never_removed(tmp_path: Path) -> None:
    tiny_fit(tmp_path, [RunCheckpoint(keep_every_n_steps=7)])
    steps = {f"step-{step:08d}.ckpt": step for step in (7, 14, 21, 28)}
    found = contents(tmp_path)
    assert found == {**steps, "best.ckpt": found["best.ckpt"], "last.ckpt": 30}
    last = tmp_path / "checkpoints/last.ckpt"
    tiny_fit(tmp_path, [RunCheckpoint()], checkpoint=last, max_steps=40)
    assert steps.items() <= contents(tmp_path).items()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_last_are_kept_also_over_a_resume(tmp_path: Path, asynchronous: bool) -> None:
    def kept(max_steps: int, start: str | None = None) -> set[int]:
        checkpoint = None if start is None else tmp_path / "checkpoints" / start
        saving = RunCheckpoint(every_n_steps=7, keep_last=3, asynchronous=asynchronous)
        tiny_fit(tmp_path, [saving], checkpoint=checkpoint, max_steps=max_steps)
        found = contents(tmp_path)
        steps = {step for name, step in found.items() if name.startswith("last-")}
        assert {name for name in found if name.startswith("last-")} == {f"last-{n:08d}.ckpt" for n in steps}
        assert found["last.ckpt"] == max(steps)
        names = ("last.ckpt", f"last-{max(steps):08d}.ckpt")
        assert len({(tmp_path / "checkpoints" / name).stat().st_ino for name in names}) == 1
        return steps

    assert kept(30) == {21, 28, 30}
    assert kept(50, "last.ckpt") == {42, 49, 50}
    # Files of later steps than those of a training that begins again belong to the one that was given up.
    assert kept(48, "last-00000042.ckpt") == {42, 48}
    # A run that keeps one removes none of them, nor of the user's own.
    (tmp_path / "checkpoints/last-paper.ckpt").hardlink_to(tmp_path / "checkpoints/last.ckpt")
    tiny_fit(tmp_path, [RunCheckpoint()], checkpoint=tmp_path / "checkpoints/last.ckpt", max_steps=60)
    there = {"last-00000042.ckpt", "last-00000048.ckpt", "last-paper.ckpt"}
    assert there <= contents(tmp_path).keys()


def test_files_of_the_users_own_are_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, 3.0, 2.0, 1.0, 0.5)
    tiny_fit(tmp_path, [RunCheckpoint("validation/scripted", keep_best=2)], max_steps=20)
    own = tmp_path / "checkpoints/best-paper.ckpt"
    own.write_bytes((tmp_path / "checkpoints/best.ckpt").read_bytes())
    for name in ("brand.new.ckpt", "notes.ckpt.tmp"):
        os.link(own, tmp_path / "checkpoints" / name)
    last = tmp_path / "checkpoints/last.ckpt"
    tiny_fit(tmp_path, [RunCheckpoint("validation/scripted", keep_best=2)], checkpoint=last, max_steps=30)
    found = contents(tmp_path)
    assert found["best-paper.ckpt"] == found["brand.new.ckpt"] == found["notes.ckpt.tmp"] == 20
    assert {"best-00000020.ckpt", "best-00000030.ckpt"} <= found.keys()
    # Going on with the best alone writes no such files, and removes none.
    tiny_fit(tmp_path, [RunCheckpoint("validation/scripted")], checkpoint=last, max_steps=40)
    assert contents(tmp_path).keys() == found.keys()


def test_the_best_of_a_checkpoint_of_before_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, 3.0, 1.0)
    saving = RunCheckpoint("validation/scripted")
    tiny_fit(tmp_path, [saving], max_steps=20)
    last = tmp_path / "checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["callbacks"][saving.state_key] = {"best_model_score": 1.0, "best_step": 20}
    torch.save(checkpoint, last)
    script(monkeypatch, 2.0)
    again = RunCheckpoint("validation/scripted")
    tiny_fit(tmp_path, [again], checkpoint=last, max_steps=30)
    assert (again.best_model_score, again.best_step) == (1.0, 20)
    assert contents(tmp_path)["best.ckpt"] == 20


def test_a_torn_file_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real files, cut at many lengths: none is taken for a complete one."""
    run = RunFolder.create(tmp_path, "tiny")
    tiny_fit(run.path, [RunCheckpoint(keep_every_n_steps=25)], max_steps=30)
    last, kept = run.checkpoints / "last.ckpt", run.checkpoints / "step-00000025.ckpt"
    whole = last.read_bytes()
    (run.checkpoints / "best.ckpt").unlink()
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        last.unlink()  # the others may be links to it
        last.write_bytes(whole[:length])
        assert find_resumable("auto", tmp_path, "tiny") == kept
        assert f"{last} is passed over" in capsys.readouterr().err
    _, module = tiny_fit(run.path, [RunCheckpoint()], checkpoint=kept, max_steps=30)
    assert torch.load(last, weights_only=True)["global_step"] == 30
    expected = tiny_fit(tmp_path / "whole", [RunCheckpoint()], max_steps=30)[1]
    assert equal(dict(module.state_dict()), dict(expected.state_dict()))


# ---------------------------------------------------------------------- copied elsewhere


@pytest.mark.parametrize("place", ["path", "file", "memory"])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_every_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, asynchronous: bool
) -> None:
    script(monkeypatch, 3.0, 1.0, 2.0, 0.5)
    run = tmp_path / "runs/tiny/4"
    url = {
        "path": str(tmp_path / "copy"),
        "file": f"file://{tmp_path}/copy",
        "memory": f"memory://{tmp_path}",
    }
    saving = RunCheckpoint(
        "validation/scripted",
        keep_best=2,
        keep_every_n_steps=15,
        asynchronous=asynchronous,
        upload_to=url[place] + "/",
    )
    tiny_fit(run, [saving], max_steps=40)
    filesystem, folder = fsspec.core.url_to_fs(f"{url[place]}/tiny/4")
    copies = {Path(path).name: filesystem.cat_file(path) for path in filesystem.ls(folder, detail=False)}
    assert copies == {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    assert {"best-00000020.ckpt", "best-00000040.ckpt", "step-00000015.ckpt"} <= copies.keys()
    assert "best-00000010.ckpt" not in copies


@pytest.mark.parametrize("can_copy", [True, False])
def test_names_of_one_file_are_sent_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_copy: bool
) -> None:
    """Where the place can copy its own files; others are sent each."""
    sent: list[str] = []
    memory = type(fsspec.filesystem("memory"))
    opened = memory.open

    def spy(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "wb":
            sent.append(Path(path).name)
        return opened(self, path, mode, **options)

    def cannot(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(memory, "open", spy)
    if not can_copy:
        monkeypatch.setattr(memory, "cp_file", cannot)
        rename = lambda self, old, new, **_: self.store.update({new: self.store.pop(old)})  # noqa: E731
        monkeypatch.setattr(memory, "mv", rename)
    url = f"memory://{tmp_path}/once"
    tiny_fit(
        tmp_path,
        [RunCheckpoint(keep_every_n_steps=10, folder=str(tmp_path / "kept"), upload_to=url)],
        max_steps=10,
    )
    filesystem, folder = fsspec.core.url_to_fs(url)
    names = sorted(Path(path).name for path in filesystem.ls(folder, detail=False))
    assert names == ["best.ckpt", "last.ckpt", "step-00000010.ckpt"]
    assert len(sent) == (1 if can_copy else 3)
    kept = (tmp_path / "kept/last.ckpt").read_bytes()
    assert all(filesystem.cat_file(f"{folder}/{name}") == kept for name in names)


def test_a_place_that_fails_is_tried_again_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "copy"
    blocked.write_text("a file where a folder should be")

    class Repair(Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            # Only once the first copies have failed, which happens beside the training.
            if trainer.global_step == 20 and blocked.is_file():
                saving._writer._upload._thread.submit(lambda: None).result(60)  # type: ignore[union-attr]
                blocked.unlink()

    run = tmp_path / "run"
    saving = RunCheckpoint(keep_every_n_steps=7, folder=str(run / "kept"), upload_to=str(blocked))
    trainer, _ = tiny_fit(run, [Repair(), saving])
    assert trainer.global_step == 30
    said = capsys.readouterr().err
    assert re.search(r"upload: step-00000007\.ckpt, last\.ckpt.* cannot be copied", said)
    assert "tried again" in said
    assert "not copied" not in said
    copies = {path.name: path.read_bytes() for path in blocked.iterdir()}
    assert copies == {path.name: path.read_bytes() for path in (run / "kept").iterdir()}


def test_what_was_not_copied_is_said_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "copy"
    blocked.write_text("a file where a folder should be")
    options: dict[str, Any] = {"folder": str(tmp_path / "kept"), "upload_to": str(blocked)}
    tiny_fit(tmp_path, [RunCheckpoint(keep_every_n_steps=10, **options)], max_steps=10)
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("insight: upload: ")
    assert "last.ckpt" in last_line
    assert f"not copied to {blocked}" in last_line
    # A later process copies what is kept for good, too.
    blocked.unlink()
    last = tmp_path / "kept/last.ckpt"
    tiny_fit(tmp_path, [RunCheckpoint(**options)], checkpoint=last, max_steps=12)
    assert {"step-00000010.ckpt", "last.ckpt"} <= set(os.listdir(blocked))
