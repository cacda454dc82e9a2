"""One model out of several checkpoints of a training: the mean of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.files import ensure_writable, require_new
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.runtime.processes import one_command
from insight.runtime.run_folder import AVERAGE, find_checkpoint, run_of_checkpoint

_OPTION = "CHECKPOINTS"


@dataclass(frozen=True)
class AveragedCheckpoint:
    """A checkpoint that holds the mean of the weights of others.

    Attributes:
        path: The file that was written.
        checkpoints: The files that were averaged, the newest last.
        steps: Their optimizer steps.
    """

    path: Path
    checkpoints: tuple[Path, ...]
    steps: tuple[int, ...]

    def to_record(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        files = [str(path) for path in self.checkpoints]
        return {"path": str(self.path), "checkpoints": files, "steps": list(self.steps)}


@one_command()
def average_weights(
    checkpoints: Sequence[str], output: str | Path | None = None, *, last: int | None = None
) -> AveragedCheckpoint:
    """Write the mean of the weights of several checkpoints, as ``insight model average`` does.

    The result is a checkpoint that every command takes, and that ``--init_from`` trains further. It has no
    optimizer state, so no run is resumed from it.

    Args:
        checkpoints: A run folder, or two or more ``.ckpt`` files of one network and tokenizer.
        output: The file to write; it must not exist. If not given, ``average.ckpt`` beside the newest one.
        last: How many of the newest checkpoints of the run are averaged; all that it kept if not given.

    Raises:
        ConfigError: ``last`` is no number of checkpoints, or is given with several files.
        CheckpointError: There are fewer checkpoints, they are of different models, or one cannot be read.
        OutputError: The file exists, or cannot be written.
    """
    require_number("last", last, 5, whole=True, at_least=2, optional=True)
    named = [str(checkpoints)] if isinstance(checkpoints, (str, Path)) else list(map(str, checkpoints))
    if last is not None and len(named) > 1:
        remedy = "leave it out, or name one run"
        raise ConfigError("chooses among the checkpoints of one run", remedy, option="last", value=last)
    if output is not None:
        require_new(Path(output))
    found = [_file(name) for name in named]
    chosen = _of_run(named[0], found[0], last) if len(named) == 1 else _of_files(named[0], found)
    steps, files = zip(*chosen, strict=True)
    path = Path(output) if output is not None else files[-1].parent / AVERAGE
    require_new(path)
    ensure_writable(path.parent, files[-1].stat().st_size)

    from insight.checkpoints.averaging import average_checkpoints
    from insight.checkpoints.writer import write_file

    write_file(average_checkpoints(files), path)
    return AveragedCheckpoint(path, files, steps)


def _file(name: str) -> Path:
    path = find_checkpoint(name, option=_OPTION)
    if path.is_dir():
        remedy = "name checkpoints of the run that it was made from"
        raise CheckpointError("is a quantized model, which has no mean", remedy, option=_OPTION, value=name)
    return path


def _of_run(name: str, found: Path, last: int | None) -> list[tuple[int, Path]]:
    """Step and file of the newest checkpoints that a run kept."""
    from insight.checkpoints.averaging import checkpoints_of

    run = run_of_checkpoint(found)
    if run is None or Path(name).is_file():
        raise _alone(name)
    kept = checkpoints_of(run)
    if len(kept) < (last or 2):
        steps = f" (of step {', '.join(map(str, kept))})" if kept else ""
        number = f"{len(kept)} checkpoint{'' if len(kept) == 1 else 's'}"
        problem = f"keeps {number} of its training{steps}, not {last or 2}"
        remedy = "train with RunCheckpoint and keep_last: 5"
        if len(kept) > 1:
            remedy = f"use --last {len(kept)}, or {remedy}"
        raise CheckpointError(problem, remedy, option=_OPTION, value=name)
    return list(kept.items())[-(last or 0) :]


def _of_files(name: str, paths: Sequence[Path]) -> list[tuple[int, Path]]:
    """Step and file of each checkpoint, the newest last."""
    from insight.checkpoints.averaging import by_step

    different: list[Path] = []
    for path in paths:  # last.ckpt is a link to the file of its step
        same = next((earlier for earlier in different if path.samefile(earlier)), None)
        if same is None:
            different.append(path)
        else:
            say(f"{path} is the same file as {same}; used once")
    if len(different) == 1:
        raise _alone(name)
    return by_step(different)


def _alone(name: str) -> CheckpointError:
    remedy = "name its run folder, or several files"
    return CheckpointError("is one file, and a mean takes two", remedy, option=_OPTION, value=name)
