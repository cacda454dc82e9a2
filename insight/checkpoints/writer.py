"""Writing checkpoints, synchronously or in the background; each file is complete or absent.

:meth:`CheckpointWriter.write` copies the state to the host's memory if it is asynchronous,
:func:`write_checkpoint` gives the file all its names, :func:`write_file` writes it, and :class:`BestScores`
determines which files are kept.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from insight.checkpoints.upload import CheckpointUpload
from insight.runtime.errors import OutputError
from insight.runtime.files import FREED, atomic_file, flush, freed_beside, output_error, writing_to

BEST = "best.ckpt"
LAST = "last.ckpt"
_NEW = ".new.ckpt"
# The names that name_of_best and name_of_last return. A user's own copy with another name is never removed.
_OF_STEP = re.compile(r"(?P<kind>best|last)-(?P<step>\d{8,})\.ckpt")
# The files that a process leaves if it is killed during a save, in the order of _NEW, atomic_file,
# publish_copy and freed_beside.
_REMAINS = re.compile(
    rf"\{_NEW}|\.\{_NEW}\.[0-9a-f]{{16}}\.tmp|((best|last|step)-\d{{8,}}|best|last)\.ckpt\.tmp|\..+\.[0-9a-f]{{16}}\{FREED}"
)
_LEAST_PRIORITY = 19


def name_of_best(step: int) -> str:
    """The name of one of the best checkpoints, which is removed when better ones come."""
    return f"best-{step:08d}.ckpt"


def name_of_last(step: int) -> str:
    """The name of one of the last checkpoints, which is removed when later ones come."""
    return f"last-{step:08d}.ckpt"


def name_of_kept(step: int) -> str:
    """The name of a checkpoint that is never removed."""
    return f"step-{step:08d}.ckpt"


class CheckpointWriter:
    """Writes the checkpoints of a run into one folder, one after the other.

    An asynchronous save copies the state to the host's memory and writes it in a thread. The next save waits
    for it, so there is never more than one copy. The process does not end before the last file is written.

    ``upload_url`` is the target folder of :class:`CheckpointUpload`.
    """

    def __init__(self, folder: Path, asynchronous: bool = False, upload_url: str | None = None) -> None:
        self.folder = folder
        self.asynchronous = asynchronous
        self._upload = CheckpointUpload(folder, upload_url) if upload_url is not None else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=_stand_back)
        self._job: Future[None] | None = None
        self._copies: list[torch.Tensor] = []

    def write(
        self,
        checkpoint: dict[str, Any],
        names: Iterable[str],
        best_steps: Iterable[int] | None,
        now: bool = False,
        num_last: int = 1,
    ) -> None:
        """Write a checkpoint, which may change as soon as this returns; see :func:`write_checkpoint`.

        If ``now`` is set, it is written before this returns, even if saves are asynchronous.

        Raises:
            OutputError: This file or, if saves are asynchronous, the previous one could not be written.
        """
        self.wait()
        later = self.asynchronous and not now
        state = host_copy(checkpoint, self._copies) if later else checkpoint
        names = list(names)

        def write() -> None:
            changed = write_checkpoint(state, self.folder, names, best_steps, num_last)
            if self._upload is not None:
                self._upload.submit(changed)

        if later:
            self.submit(write)
        else:
            write()

    def submit(self, job: Callable[[], None]) -> None:
        """Start a job in the thread of the writer; :meth:`wait` raises its exception."""
        self._job = self._thread.submit(job)

    def wait(self) -> None:
        """Wait until everything is written."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """Finish all work and end the threads."""
        self._thread.shutdown()
        if self._upload is not None:
            self._upload.finish()


def write_checkpoint(
    checkpoint: dict[str, Any],
    folder: Path,
    names: Iterable[str],
    best_steps: Iterable[int] | None,
    num_last: int = 1,
) -> list[str]:
    """Write a checkpoint under several names, and remove those that are no longer among the best or the last.

    The file is written once, and every name becomes a hard link to it. A name always refers to a whole file.

    Args:
        checkpoint: Tensors and plain values.
        folder: The folder to write to.
        names: The names in the order in which they change; after a crash in between, the later ones still
            refer to the older file. If the folder is read-only or full, all of them do.
        best_steps: The steps whose :func:`name_of_best` is kept; ``None`` to remove no such file.
        num_last: How many files of :func:`name_of_last` are kept, counted back from the step of this
            checkpoint, since later ones belong to a training that was given up; 1 to remove no such file.

    Returns:
        The names that were written or removed.
    """
    new = folder / _NEW
    changed = list(names)
    write_file(checkpoint, new)
    for name in changed:
        publish_copy(new, folder / name)
    with writing_to(folder):
        new.unlink()
        for path in _outdated(folder, checkpoint, best_steps, num_last):
            with freed_beside(path):
                path.unlink()
            changed.append(path.name)
    return changed


def _outdated(
    folder: Path, checkpoint: dict[str, Any], best_steps: Iterable[int] | None, num_last: int
) -> list[Path]:
    """The files that are no longer among the best, or the last, beside a new checkpoint."""
    of_kind: dict[str, dict[int, Path]] = {"best": {}, "last": {}}
    for path in folder.iterdir():
        if match := _OF_STEP.fullmatch(path.name):
            of_kind[match["kind"]][int(match["step"])] = path
    outdated: list[Path] = []
    if best_steps is not None:
        best = of_kind["best"]
        outdated += [best[step] for step in best.keys() - set(best_steps)]
    if num_last > 1:
        last = of_kind["last"]
        earlier = sorted(step for step in last if step <= checkpoint["global_step"])
        outdated += [last[step] for step in last.keys() - set(earlier[-num_last:])]
    return outdated


def write_file(checkpoint: dict[str, Any], path: Path) -> None:
    """Write ``checkpoint`` with :func:`insight.runtime.files.atomic_file`.

    Lightning's own writer builds the file in memory, moves it from the system's temporary folder, which may
    be another disk, and never flushes it.
    """
    # Checksums double the time of a save and are never read.
    checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        with atomic_file(path) as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:
        # torch's archive writer reports a failed write as its own error, with the system's error as context.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError):
                raise output_error(cause, path) from error
            cause = cause.__context__
        raise OutputError(f"a checkpoint cannot be written ({error})", "is the disk full?") from error
    finally:
        torch.serialization.set_crc32_options(checksums)


def publish_copy(source: Path, target: Path) -> None:
    """Replace ``target`` atomically by a hard link to ``source``, or by a copy if the disk has no links.

    A hard link costs neither time nor space, and is safe since files are only replaced, never changed.
    """
    temporary = target.with_name(f"{target.name}.tmp")
    with writing_to(target):
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            flush(temporary)
        with freed_beside(target):
            os.replace(temporary, target)
        flush(target.parent)


def remove_remains(folder: Path) -> None:
    """Remove the temporary files of a process that was killed during a save."""
    for path in folder.iterdir():
        if _REMAINS.fullmatch(path.name):
            path.unlink()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Makes all other saves of a Trainer (``trainer.save_checkpoint``) use :func:`write_file`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        write_file(checkpoint, Path(path))


class BestScores:
    """The best ``num_kept`` values so far by ``mode``, min or max; the earlier of equal values is better."""

    def __init__(self, mode: str, num_kept: int) -> None:
        self.num_kept = num_kept
        self.entries: list[tuple[float, int]] = []  # pairs of value and step, the best first
        self._sign = 1 if mode == "min" else -1

    @property
    def best(self) -> tuple[float, int] | None:
        """Value and step of the best; ``None`` before the first value."""
        return self.entries[0] if self.entries else None

    @property
    def steps(self) -> set[int]:
        """The steps of all entries."""
        return {step for _, step in self.entries}

    def admits(self, value: float) -> bool:
        """Whether ``value`` is among the best, so that :meth:`add` would keep it."""
        if math.isnan(value):
            return False
        has_room = len(self.entries) < self.num_kept
        return has_room or self._sign * value < self._sign * self.entries[-1][0]

    def add(self, value: float, step: int) -> bool:
        """Add a value that :meth:`admits` accepts; return whether it is the best."""
        others = [entry for entry in self.entries if entry[1] != step]
        self.restore([*others, (value, step)])
        return self.entries[0] == (value, step)

    def restore(self, entries: Iterable[tuple[float, int]]) -> None:
        """Replace the entries by the best of the given ones."""
        # Sorting is stable, so the earlier of two equal values stays first.
        self.entries = sorted(entries, key=lambda entry: self._sign * entry[0])[: self.num_kept]


def host_copy(checkpoint: dict[str, Any], earlier: list[torch.Tensor]) -> dict[str, Any]:
    """A copy of a checkpoint in the host's memory, which training does not change; tied weights stay tied.

    The memory of unused copies in ``earlier`` is reused if it fits, since allocating takes longer than
    copying; afterwards the list contains the new copies.
    """
    unused: dict[tuple[Any, ...], list[torch.Tensor]] = defaultdict(list)
    for tensor in earlier:
        unused[tensor.dtype, tensor.shape, tensor.stride()].append(tensor)
    copies: dict[tuple[Any, ...], torch.Tensor] = {}

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        layout = (tensor.dtype, tensor.shape, tensor.stride())
        place = (tensor.device, tensor.data_ptr(), *layout)
        if place not in copies:
            source, fitting = tensor.detach(), unused[layout]
            if fitting:
                copies[place] = fitting.pop()
                copies[place].copy_(source, non_blocking=copies[place].is_pinned())
            else:
                copies[place] = _first_copy(source)
        return copies[place]

    copy: dict[str, Any] = apply_to_collection(checkpoint, torch.Tensor, copied)
    for device in {place[0] for place, tensor in copies.items() if tensor.is_pinned()}:
        torch.cuda.synchronize(device)  # copies to pinned memory are asynchronous
    earlier[:] = copies.values()
    return copy


def _first_copy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_cuda and type(tensor) is torch.Tensor and tensor.is_contiguous():
        with contextlib.suppress(RuntimeError):  # pinned memory is limited
            # A GPU copies to pinned memory several times faster.
            pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
            return pinned.copy_(tensor, non_blocking=True)
    return tensor.to("cpu", copy=True)


def _stand_back() -> None:
    """Give this thread the lowest priority, so that it does not slow training down."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        with contextlib.suppress(OSError):  # changing it may be denied
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
