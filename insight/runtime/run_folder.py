"""The folder of one run, ``runs/<name>/<n>/``; finding a run or a checkpoint by what a user types."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.files import missing_path_remedy, writing_to
from insight.runtime.messages import say

DEFAULT_ROOT = Path("runs")
ARTIFACT_DESCRIPTION = "quantization.json"
"""The file that makes a folder a quantized model."""
SEARCH_REPORT = "report.json"
"""The measurements of a search for a quantized model; alone in a folder where the model was left as it is."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps its files. Making the object touches nothing; :meth:`create` makes a new folder.

    Args:
        path: ``runs/<name>/<n>``.
    """

    path: Path

    @classmethod
    def create(cls, root: Path | str, name: str) -> RunFolder:
        """Make ``root/name/n`` with the first free ``n`` = 1, 2, ….

        ``mkdir`` is the lock: two runs that start together get two numbers, and no run is overwritten.

        Raises:
            ConfigError: ``name`` is not one plain folder name.
            OutputError: The folder cannot be made.
        """
        check_run_name(name)
        parent = Path(root) / name
        with writing_to(parent):
            parent.mkdir(parents=True, exist_ok=True)
            number = max((int(run.path.name) for run in list_runs(root, name)), default=0) + 1
            while True:
                try:
                    (parent / str(number)).mkdir()
                    break
                except FileExistsError:
                    number += 1
            run = cls(parent / str(number))
            run.checkpoints.mkdir()
        return run

    @property
    def config_path(self) -> Path:
        """The complete configuration, as YAML."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of ``best.ckpt`` and ``last.ckpt``."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint with the best validation metric, if one was written."""
        return _if_file(self.checkpoints / "best.ckpt")

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint, if one was written."""
        return _if_file(self.checkpoints / "last.ckpt")

    def find_newest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint, if there is one; a line says which newer ones are torn."""
        paths = [path for path in self.checkpoints.glob("*.ckpt") if not path.name.startswith(".")]
        # last.ckpt is the newest by what it means, the others by when they were written.
        by_age = sorted(paths, key=lambda path: (path.name == "last.ckpt", path.stat().st_mtime_ns))
        for path in reversed(by_age):
            if is_complete(path):
                return path
            say(f"{path} is passed over: the end of the file is missing")
        return None

    @property
    def metrics_path(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def samples_path(self) -> Path:
        """One JSON object a sampled text."""
        return self.path / "samples.jsonl"

    @property
    def summary_path(self) -> Path:
        """Final metrics with value, interval, n and unit."""
        return self.path / "summary.json"

    @property
    def info_path(self) -> Path:
        """Command, versions, machine, data and network of the run."""
        return self.path / "run.json"

    @property
    def early_stopping_path(self) -> Path:
        """The evidence and the answer of early stopping at the newest validation."""
        return self.path / "early_stopping.json"

    @property
    def learning_rate_path(self) -> Path:
        """The result of a sweep over learning rates before training."""
        return self.path / "learning_rate.json"

    @property
    def profile(self) -> Path:
        """The folder of a profile of some steps."""
        return self.path / "profile"

    @property
    def report_path(self) -> Path:
        """The page that explains the run."""
        return self.path / "report.html"


def check_run_name(name: str) -> None:
    """Refuse a run name that would leave its folder.

    Raises:
        ConfigError: ``name`` is not one plain folder name.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "is not a plain folder name",
            "use letters, digits, '.', '_' and '-', beginning with a letter or digit",
            option="run.name",
            value=name,
        )


def list_runs(root: Path | str, name: str) -> list[RunFolder]:
    """The runs of ``name`` under ``root``, oldest first."""
    return _numbered_runs(Path(root) / name)


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint file has its end, where the list of its contents is.

    A file that lost its tail in a crash or on its way is found for the price of reading that list. Bytes that
    changed in its middle are not.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def find_checkpoint(text: str, root: Path | str = DEFAULT_ROOT, option: str = "--checkpoint") -> Path:
    """The checkpoint file, or the folder of a quantized model, that a user names to measure or use it.

    Args:
        text: A ``.ckpt`` file; a folder that ``insight quantize`` wrote; a run folder (its best checkpoint,
            else its last); ``runs/<name>`` (the newest run that has a checkpoint); or ``<name>`` and
            ``<name>/<n>`` under ``root``.
        root: Where runs are kept.
        option: The option that the user gave ``text`` for, for messages.

    Raises:
        CheckpointError: Nothing there is a checkpoint; the message names what was looked for.
    """
    return _find(text, Path(root), prefer_best=True, option=option)


def find_resumable(text: str, root: Path | str, name: str) -> Path:
    """The checkpoint file to go on from.

    Args:
        text: ``"auto"`` for the newest run of ``name`` that has a complete checkpoint, or what
            :func:`find_checkpoint` takes; a run folder means its newest complete checkpoint, not its best.
        root: Where runs are kept.
        name: Name of the run.

    Raises:
        CheckpointError: Nothing there can be resumed.
    """
    if text != "auto":
        return _find(text, Path(root), prefer_best=False, option="--resume")
    for run in reversed(list_runs(root, name)):
        newest = run.find_newest_checkpoint()
        if newest:
            return newest
    raise CheckpointError(
        f"no run of {name!r} in {Path(root)} has a complete checkpoint (last.ckpt or another)",
        "start without --resume, or name a run folder or a .ckpt file",
        option="--resume",
        value=text,
    )


def run_of_checkpoint(checkpoint: Path) -> RunFolder | None:
    """The run folder that a checkpoint lies in, or ``None`` for a file from elsewhere."""
    folder = checkpoint.absolute().parent
    return RunFolder(folder.parent) if folder.name == "checkpoints" else None


def _find(text: str, root: Path, prefer_best: bool, option: str) -> Path:
    path = Path(text)
    if not path.exists() and (root / text).exists():
        path = root / text
    if not path.exists():
        remedy = missing_path_remedy(path) if path.is_symlink() else None
        raise CheckpointError("does not exist", remedy or _what_there_is(root), option=option, value=text)
    if (path / ARTIFACT_DESCRIPTION).is_file():
        if prefer_best:
            return path
        raise CheckpointError(
            "is a quantized model, which cannot be trained", "name a run folder", option=option, value=text
        )
    if path.is_file():
        return path
    if path.name == "checkpoints":
        path = path.parent
    # A run first; else the runs of one name, newest first.
    for run in (RunFolder(path), *reversed(_numbered_runs(path))):
        if prefer_best:
            checkpoint = run.best_checkpoint or run.last_checkpoint
        else:
            checkpoint = run.find_newest_checkpoint()
        if checkpoint:
            return checkpoint
    if (path / SEARCH_REPORT).is_file():
        raise CheckpointError(
            "holds only the report of insight quantize, which left the model alone",
            "name the run or checkpoint that was measured",
            option=option,
            value=text,
        )
    raise CheckpointError(
        "holds no checkpoint (looked for checkpoints/best.ckpt and checkpoints/last.ckpt)",
        _what_there_is(root),
        option=option,
        value=text,
    )


def _what_there_is(root: Path) -> str:
    """A remedy that names the newest runs with a checkpoint, so that the next attempt can be copied."""
    runs = [run for folder in _folders(root) for run in _numbered_runs(folder)]
    runs = [run for run in runs if run.last_checkpoint or run.best_checkpoint]
    if not runs:
        return f"train one with `insight fit`, or name a .ckpt file or a run folder ({root} has none)"
    newest = max(
        runs, key=lambda run: (run.last_checkpoint or run.best_checkpoint or run.path).stat().st_mtime
    )
    return f"name a .ckpt file or a run folder; the newest is {newest.path}"


def _numbered_runs(parent: Path) -> list[RunFolder]:
    numbered = [folder for folder in _folders(parent) if folder.name.isdecimal() and folder.name.isascii()]
    return [RunFolder(folder) for folder in sorted(numbered, key=lambda folder: int(folder.name))]


def _folders(parent: Path) -> list[Path]:
    return [child for child in parent.iterdir() if child.is_dir()] if parent.is_dir() else []


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None
