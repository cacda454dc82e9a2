"""Runs are numbered, never overwritten, and found by what a user types."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

import pytest

from insight.runtime.errors import CheckpointError, ConfigError, OutputError
from insight.runtime.run_folder import (
    RunFolder,
    find_checkpoint,
    find_resumable,
    list_runs,
    run_of_checkpoint,
)


def make_run(root: Path, name: str, *checkpoints: str) -> RunFolder:
    run = RunFolder.create(root, name)
    for checkpoint in checkpoints:
        write_checkpoint(run.checkpoints / f"{checkpoint}.ckpt")
    return run


def write_checkpoint(path: Path) -> None:
    """A file of the kind that ``torch.save`` writes, as far as finding one goes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)


def test_numbers_grow_and_nothing_is_overwritten(tmp_path: Path) -> None:
    runs = [RunFolder.create(tmp_path, "demo") for _ in range(3)]
    assert [run.path for run in runs] == [tmp_path / "demo" / str(number) for number in (1, 2, 3)]
    assert all(run.checkpoints.is_dir() for run in runs)
    (runs[1].path / "checkpoints").rmdir()
    runs[1].path.rmdir()
    assert (
        RunFolder.create(tmp_path, "demo").path.name == "4"
    )  # a number is not given twice while later ones exist


def test_other_things_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "demo" / "notes").mkdir(parents=True)
    (tmp_path / "demo" / "10").mkdir()
    (tmp_path / "demo" / "9").write_text("a file")
    (tmp_path / "demo" / "٣").mkdir()  # a digit, but not one of ours
    assert RunFolder.create(tmp_path, "demo").path.name == "11"
    assert [run.path.name for run in list_runs(tmp_path, "demo")] == ["10", "11"]


def test_parallel_starts_get_different_numbers(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    made: list[Path] = []

    def create() -> None:
        start.wait()
        made.append(RunFolder.create(tmp_path, "demo").path)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp", ".hidden", "a b", "-x", "a\n", "ä"])
def test_name_that_is_no_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as error:
        RunFolder.create(tmp_path, name)
    assert error.value.option == "run.name"
    assert list(tmp_path.iterdir()) == []


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutputError, match="choose another output folder"):
        RunFolder.create(tmp_path / "runs", "demo")


def test_paths(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    names = {
        run.config_path: "config.yaml",
        run.metrics_path: "metrics.jsonl",
        run.samples_path: "samples.jsonl",
        run.summary_path: "summary.json",
        run.info_path: "run.json",
        run.report_path: "report.html",
        run.checkpoints: "checkpoints",
    }
    assert all(path == tmp_path / name for path, name in names.items())
    assert run.best_checkpoint is None
    assert run.last_checkpoint is None


def test_checkpoint_of_a_file_and_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, "demo", "best", "last")
    best, last = run.checkpoints / "best.ckpt", run.checkpoints / "last.ckpt"
    assert find_checkpoint(str(last)) == last
    assert find_checkpoint(str(run.path)) == best
    assert find_checkpoint(str(run.checkpoints)) == best
    best.unlink()
    assert find_checkpoint(str(run.path)) == last


def test_checkpoint_of_a_name_is_of_its_newest_run_that_has_one(tmp_path: Path) -> None:
    for _ in range(9):
        make_run(tmp_path, "demo", "last")
    newest = make_run(tmp_path, "demo", "best")  # number 10 comes after 9
    make_run(tmp_path, "demo")  # failed before its first checkpoint
    assert find_checkpoint(str(tmp_path / "demo")) == newest.checkpoints / "best.ckpt"
    assert find_checkpoint("demo", root=tmp_path) == newest.checkpoints / "best.ckpt"
    assert find_checkpoint("demo/3", root=tmp_path) == tmp_path / "demo/3/checkpoints/last.ckpt"


def test_default_root_is_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs"), "demo", "last")
    assert find_checkpoint("demo") == Path("runs/demo/1/checkpoints/last.ckpt")
    assert find_checkpoint("runs/demo") == Path("runs/demo/1/checkpoints/last.ckpt")


def test_what_is_missing_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        find_checkpoint("nothing", root=tmp_path)
    assert (error.value.option, error.value.value) == ("--checkpoint", "nothing")
    empty = make_run(tmp_path, "empty")
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(str(empty.path), root=tmp_path)
    assert error.value.option == "--checkpoint"
    trained = make_run(tmp_path, "trained", "last")
    with pytest.raises(CheckpointError, match=f"the newest is {trained.path}"):
        find_checkpoint(str(empty.path), root=tmp_path)


def test_newest_is_by_time_over_all_names(tmp_path: Path) -> None:
    newer = make_run(tmp_path, "a", "last")
    older = make_run(tmp_path, "b", "last")
    os.utime(older.checkpoints / "last.ckpt", (1, 1))
    with pytest.raises(CheckpointError, match=f"the newest is {newer.path}"):
        find_checkpoint("c", root=tmp_path)


def test_resume_takes_the_last_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, "demo", "best", "last")
    last = run.checkpoints / "last.ckpt"
    assert find_resumable(str(run.path), tmp_path, "demo") == last
    assert find_resumable("auto", tmp_path, "demo") == last
    assert find_resumable(str(run.checkpoints / "best.ckpt"), tmp_path, "demo").name == "best.ckpt"


def test_resume_auto_passes_runs_without_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, "demo", "last")
    make_run(tmp_path, "demo")
    make_run(tmp_path, "other", "last")
    assert find_resumable("auto", tmp_path, "demo") == run.checkpoints / "last.ckpt"


def test_resuming_passes_torn_checkpoints_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = make_run(tmp_path, "demo", "last")
    run = make_run(tmp_path, "demo", "step-00000010", "best", "step-00000030", "last")
    names = ("step-00000010", "best", "step-00000030", "last")
    paths = [run.checkpoints / f"{name}.ckpt" for name in names]
    (run.checkpoints / ".new.ckpt").write_bytes(b"half")
    for age, path in enumerate(paths):
        os.utime(path, (age + 1, age + 1))
    os.utime(paths[-1], (0, 0))  # copying a run may give times anew; last.ckpt is the last by its name
    while paths:
        assert find_resumable("auto", tmp_path, "demo") == paths[-1]
        assert find_resumable(str(run.path), tmp_path, "demo") == paths[-1]
        said = capsys.readouterr().err.splitlines()
        torn = [f"{run.checkpoints / name}.ckpt is passed over" for name in reversed(names[len(paths) :])]
        assert len(said) == 2 * len(torn)
        assert all(words in line for words, line in zip(torn * 2, said, strict=True))
        path = paths.pop()
        path.write_bytes(path.read_bytes()[: -1 - len(paths)])  # a byte of the tail is enough
        os.utime(path, (len(paths) + 1, len(paths) + 1))
    assert find_resumable("auto", tmp_path, "demo") == older.checkpoints / "last.ckpt"
    with pytest.raises(CheckpointError) as error:
        find_resumable(str(run.path), tmp_path, "demo")
    assert error.value.option == "--resume"


def test_resume_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        find_resumable("auto", tmp_path, "demo")
    assert (error.value.option, error.value.value) == ("--resume", "auto")
    with pytest.raises(CheckpointError) as error:
        find_resumable("runs/demo/7", tmp_path, "demo")
    assert (error.value.option, error.value.value) == ("--resume", "runs/demo/7")


def test_run_of_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, "demo", "last")
    assert run_of_checkpoint(run.checkpoints / "last.ckpt") == RunFolder(run.path.absolute())
    assert run_of_checkpoint(tmp_path / "downloaded.ckpt") is None
