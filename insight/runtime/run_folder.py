"""The folder of one run, ``runs/<name>/<n>/``, and the search for a run or checkpoint that a user names."""

from __future__ import annotations

import contextlib
import itertools
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.files import missing_path_remedy, writing_to
from insight.runtime.messages import say

DEFAULT_ROOT = Path("runs")
ARTIFACT_DESCRIPTION = "quantization.json"
"""The file that marks a folder as a quantized model."""
AVERAGE = "average.ckpt"
"""The usual name of a checkpoint that ``insight model average`` wrote, which no run is resumed from."""
SEARCH_REPORT = "report.json"
"""The report of a search for a quantized model; the only file of a search that left the model unchanged."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _InRun:
    """A path inside a run folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: RunFolder, owner: type | None = None) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """The files of one run in ``path``, which is ``runs/<name>/<n>``.

    Making the object changes no file; :meth:`create` makes a new folder.
    """

    path: Path

    config_path = _InRun("config.yaml")  # the complete configuration
    checkpoints = _InRun("checkpoints")  # the folder of best.ckpt and last.ckpt
    metrics_path = _InRun("metrics.jsonl")  # one JSON object per logged step
    samples_path = _InRun("samples.jsonl")  # one JSON object per sampled text
    translations = _InRun("translations")  # the folder of the translated test text and its evaluation
    summary_path = _InRun("summary.json")  # the final metrics with value, interval, n and unit
    info_path = _InRun("run.json")  # the command, versions, machine, data and network of the run
    early_stopping_path = _InRun("early_stopping.json")  # evidence and decision at the newest validation
    learning_rate_path = _InRun("learning_rate.json")  # the sweep over learning rates before training
    profile = _InRun("profile")  # the folder with the profile of some steps
    report_path = _InRun("report.html")  # the HTML report
    chat_template_path = _InRun("chat_template.jinja")  # the template of a conversation, of an imported model
    generation_path = _InRun("generation_config.json")  # the defaults of generation, of an imported model

    @classmethod
    def create(cls, root: Path | str, name: str) -> RunFolder:
        """Make ``root/name/n`` with the first free ``n`` = 1, 2, ….

        ``mkdir`` serves as the lock: two runs that start together get two numbers, and none is overwritten.
        """
        check_run_name(name)
        parent = Path(root) / name
        with writing_to(parent):
            parent.mkdir(parents=True, exist_ok=True)
            newest = max((int(run.path.name) for run in list_runs(root, name)), default=0)
            for number in itertools.count(newest + 1):
                with contextlib.suppress(FileExistsError):
                    (parent / str(number)).mkdir()
                    break
            run = cls(parent / str(number))
            run.checkpoints.mkdir()
        return run

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint with the best validation metric, or ``None``."""
        path = self.checkpoints / "best.ckpt"
        return path if path.is_file() else None

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint, or ``None``."""
        path = self.checkpoints / "last.ckpt"
        return path if path.is_file() else None

    def find_newest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint, or ``None``; a message names newer ones that are incomplete."""
        paths = self.checkpoints.glob("*.ckpt")
        paths = (path for path in paths if not path.name.startswith(".") and path.name != AVERAGE)
        # last.ckpt is the newest by definition, the others are ordered by the time of writing.
        by_age = sorted(paths, key=lambda path: (path.name == "last.ckpt", path.stat().st_mtime_ns))
        for path in reversed(by_age):
            if is_complete(path):
                return path
            say(f"{path} is passed over: the end of the file is missing")
        return None


def check_run_name(name: str) -> None:
    """Refuse a run name that would lead out of its folder, with a :class:`ConfigError`."""
    if not _NAME.fullmatch(name):
        remedy = "use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        raise ConfigError("is not a plain folder name", remedy, option="run.name", value=name)


def list_runs(root: Path | str, name: str) -> list[RunFolder]:
    """The runs of ``name`` under ``root``, oldest first."""
    folders = _folders(Path(root) / name)
    numbered = [folder for folder in folders if folder.name.isdecimal() and folder.name.isascii()]
    return [RunFolder(folder) for folder in sorted(numbered, key=lambda folder: int(folder.name))]


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint file has its end, which holds the list of its contents.

    This finds a file that lost its end in a crash or in a copy, but no changed bytes in the middle.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def find_resumable(text: str, root: Path | str, name: str) -> Path:
    """The checkpoint file from which to continue.

    Args:
        text: ``"auto"`` for the newest run of ``name`` that has a complete checkpoint, or any text that
            :func:`find_checkpoint` takes; a run folder means its newest complete checkpoint, not its best.
        root: The folder of all runs.
        name: Name of the run.
    """
    if text != "auto":
        return find_checkpoint(text, root, "--resume", prefer_best=False)
    for run in reversed(list_runs(root, name)):
        if newest := run.find_newest_checkpoint():
            return newest
    raise CheckpointError(
        f"no run of {name!r} in {Path(root)} has a complete checkpoint (last.ckpt or another)",
        "start without --resume, or name a run folder or a .ckpt file",
        option="--resume",
        value=text,
    )


def run_of_checkpoint(checkpoint: Path) -> RunFolder | None:
    """The run folder that holds a checkpoint, or ``None`` for a file elsewhere."""
    folder = checkpoint.absolute().parent
    return RunFolder(folder.parent) if folder.name == "checkpoints" else None


def find_checkpoint(
    text: str, root: Path | str = DEFAULT_ROOT, option: str = "--checkpoint", prefer_best: bool = True
) -> Path:
    """The checkpoint file, or the folder of a quantized model, that a user names.

    Args:
        text: A ``.ckpt`` file; a folder that ``insight quantize`` wrote; a run folder (its best checkpoint,
            else its last); ``runs/<name>`` (the newest run that has a checkpoint); or ``<name>`` or
            ``<name>/<n>`` under ``root``.
        root: The folder of all runs.
        option: The option that holds ``text``, for messages.
        prefer_best: Whether a run folder means its best checkpoint; otherwise its newest complete one.

    Raises:
        CheckpointError: No checkpoint was found.
    """
    root, path = Path(root), Path(text)
    if not path.exists() and (root / text).exists():
        path = root / text
    if not path.exists():
        remedy = missing_path_remedy(path) if path.is_symlink() else None
        raise CheckpointError("does not exist", remedy or _what_there_is(root), option=option, value=text)
    if (path / ARTIFACT_DESCRIPTION).is_file():
        if prefer_best:
            return path
        problem = "is a quantized model, which cannot be trained"
        raise CheckpointError(problem, "name a run folder", option=option, value=text)
    if path.is_file():
        return path
    if path.name == "checkpoints":
        path = path.parent
    # The path may be a run; otherwise the runs in it are tried, newest first.
    for run in (RunFolder(path), *reversed(list_runs(path, ""))):
        best = run.best_checkpoint or run.last_checkpoint if prefer_best else run.find_newest_checkpoint()
        if best:
            return best
    if (path / SEARCH_REPORT).is_file():
        problem = "holds only the report of insight quantize, which left the model alone"
        remedy = "name the run or checkpoint that was measured"
    else:
        problem = "holds no checkpoint (looked for checkpoints/best.ckpt and checkpoints/last.ckpt)"
        remedy = _what_there_is(root)
    raise CheckpointError(problem, remedy, option=option, value=text)


def _what_there_is(root: Path) -> str:
    """A remedy that names the newest runs with a checkpoint, so that the user can copy one."""
    runs = [run for folder in _folders(root) for run in list_runs(folder, "")]
    files = [file for run in runs if (file := run.last_checkpoint or run.best_checkpoint)]
    if not files:
        return f"train one with `insight fit`, or name a .ckpt file or a run folder ({root} has none)"
    newest = max(files, key=lambda file: file.stat().st_mtime).parents[1]
    return f"name a .ckpt file or a run folder; the newest is {newest}"


def _folders(parent: Path) -> list[Path]:
    return [child for child in parent.iterdir() if child.is_dir()] if parent.is_dir() else []
