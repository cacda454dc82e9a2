"""The best validations of a run: which values they had, and at which steps."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import re
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.serialization import config

from insight.runtime.direct_file import DISK_BLOCK
from insight.runtime.errors import ConfigError, OutputError
from insight.runtime.files import FREED, LARGE_BYTES, atomic_file, flush, freed_beside, writing_to


class BestScores:
    """The best values so far, best first; of equal ones the earlier counts.

    Args:
        mode: ``min`` if smaller is better, ``max`` if larger is.
        num_kept: How many.

    Attributes:
        entries: Pairs of value and step.
    """

    def __init__(self, mode: str, num_kept: int) -> None:
        self.num_kept = num_kept
        self.entries: list[tuple[float, int]] = []
        self._sign = 1 if mode == "min" else -1

    @property
    def best(self) -> tuple[float, int] | None:
        """Value and step of the best, ``None`` before there is one."""
        return self.entries[0] if self.entries else None

    @property
    def steps(self) -> set[int]:
        """Steps of all."""
        return {step for _, step in self.entries}

    def admits(self, value: float) -> bool:
        """Whether ``value`` is among the best, so that :meth:`add` would keep it."""
        if math.isnan(value):
            return False
        has_room = len(self.entries) < self.num_kept
        return has_room or self._sign * value < self._sign * self.entries[-1][0]

    def add(self, value: float, step: int) -> bool:
        """Take in a value that :meth:`admits` lets through; returns whether it is the best."""
        others = [entry for entry in self.entries if entry[1] != step]
        self._take([*others, (value, step)])
        return self.entries[0] == (value, step)

    def restore(self, entries: Iterable[tuple[float, int]]) -> None:
        """Go on from entries that were kept, perhaps more than are kept now."""
        self._take(list(entries))

    def _take(self, entries: list[tuple[float, int]]) -> None:
        # Sorting is stable, so that of equal values the one that came first stays in front.
        self.entries = sorted(entries, key=lambda entry: self._sign * entry[0])[: self.num_kept]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, streamed to a neighbour, flushed to the disk and renamed.

    Lightning's own writer builds the file in memory and moves it from the system's temporary folder,
    which is a copy where that is another disk, and never flushes it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            OutputError: Read-only or full; an older file at ``path`` is untouched then.
        """
        is_large = _num_bytes(checkpoint) >= LARGE_BYTES
        with atomic_file(Path(path), is_large=is_large) as file:
            _save(checkpoint, file, is_large)


def publish_copy(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source`` in one step, replacing what was there.

    A hard link costs neither time nor space; files are only ever replaced here, never changed, so the
    two names cannot disturb each other. Where the disk has no links it is a copy.

    Raises:
        OutputError: Read-only or full; an older ``target`` is untouched then.
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


@contextlib.contextmanager
def _archives(alignment: int) -> Iterator[None]:
    """How torch writes its archives: tensors at multiples of ``alignment`` bytes, and no checksums.

    Those take as long as the rest of a save, and nobody reads them.
    """
    checksums, before = torch.serialization.get_crc32_options(), config.save.storage_alignment
    torch.serialization.set_crc32_options(False)
    config.save.storage_alignment = alignment
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(checksums)
        config.save.storage_alignment = before


def _num_bytes(value: Any) -> int:
    """Of the tensors in a checkpoint, about: those that share memory are counted for each."""
    if isinstance(value, torch.Tensor):
        return value.nbytes if value.layout is torch.strided else 0
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    return sum(map(_num_bytes, value)) if isinstance(value, (list, tuple)) else 0


def _save(checkpoint: dict[str, Any], file: Any, is_large: bool) -> None:
    try:
        with _archives(DISK_BLOCK if is_large else config.save.storage_alignment):
            torch.save(checkpoint, file)
    except RuntimeError as error:
        # torch's archive writer reports a failed write as its own error, with the system's as the cause.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError):
                raise cause from None
            cause = cause.__context__
        raise OutputError(f"a checkpoint cannot be written ({error})", "is the disk full?") from error


_OWN_PAGES_BYTES = 1 << 20
_LEAST_PRIORITY = 19


class BackgroundWriter:
    """Does one job at a time, in the order they come, in a thread of its own.

    A job that comes while another is running waits for it, so that there is never more than one copy of the
    state in memory. The process does not end before the last job has.

    Attributes:
        copies: Tensors of the last copy, for the next one.
    """

    def __init__(self) -> None:
        self.copies: list[torch.Tensor] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=_stand_back)
        self._job: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Begin a job.

        Raises:
            Exception: That of the job before, which is then the end of this one too.
        """
        self.wait()
        self._job = self._thread.submit(job)

    def wait(self) -> None:
        """Wait until everything is done.

        Raises:
            Exception: That of the last job.
        """
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """End the thread, after its last job."""
        self._thread.shutdown()


def _stand_back() -> None:
    """Leave the processors to the training wherever it wants them, and run when it waits."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        with contextlib.suppress(OSError):  # where that is denied it goes on as it is
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)


def host_copy(checkpoint: dict[str, Any], earlier: list[torch.Tensor]) -> dict[str, Any]:
    """A checkpoint that training no longer changes: all its tensors copied, to the host's memory.

    Tensors that are one (tied weights) stay one.

    Args:
        checkpoint: What to copy.
        earlier: Copies that nobody needs any more. They are written over where they fit, since getting fresh
            memory takes longer than copying; afterwards the list holds the new copies.
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
            copies[place] = _copy_to(fitting.pop(), source) if fitting else _first_copy(source)
        return copies[place]

    copy: dict[str, Any] = apply_to_collection(checkpoint, torch.Tensor, copied)
    for device in {place[0] for place, tensor in copies.items() if tensor.is_pinned()}:
        torch.cuda.synchronize(device)  # copies to pinned memory go on by themselves
    earlier[:] = copies.values()
    return copy


def _first_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory; that of a large one begins where a disk can read it from."""
    is_plain = type(tensor) is torch.Tensor and tensor.is_contiguous() and not tensor.is_quantized
    if tensor.nbytes < _OWN_PAGES_BYTES or not is_plain:
        return tensor.to("cpu", copy=True)
    if tensor.is_cuda:
        with contextlib.suppress(RuntimeError):  # there is only so much memory that may be pinned
            # To which a GPU copies several times faster.
            return _copy_to(torch.empty_like(tensor, device="cpu", pin_memory=True), tensor)
    memory = torch.frombuffer(mmap.mmap(-1, tensor.nbytes), dtype=tensor.dtype)
    return _copy_to(memory.as_strided(tensor.shape, tensor.stride()), tensor)


def _copy_to(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    return target.copy_(source, non_blocking=target.is_pinned())


BEST = "best.ckpt"
LAST = "last.ckpt"
_NEW = ".new.ckpt"
# What name_of_best makes: a copy of the user's own with another name is not ours to remove.
_BEST_OF_STEP = re.compile(r"best-\d{8,}\.ckpt")


def name_of_best(step: int) -> str:
    """Name of one of the best checkpoints, removed when better ones come."""
    return f"best-{step:08d}.ckpt"


def name_of_kept(step: int) -> str:
    """Name of a checkpoint that is never removed."""
    return f"step-{step:08d}.ckpt"


def kept_checkpoints(folder: Path) -> list[Path]:
    """Those of :func:`name_of_kept` that are there, in the order of their steps."""
    return sorted(folder.glob("step-*.ckpt"))


def write_checkpoint(
    checkpoint: dict[str, Any], folder: Path, names: Iterable[str], best_steps: Iterable[int] | None
) -> list[str]:
    """Write a checkpoint under several names, and remove the best ones that no longer are.

    It is written once, under another name, and every name is a hard link to it. A name stands for a
    complete file at every moment.

    Args:
        checkpoint: Tensors and plain values.
        folder: Where to.
        names: In the order they appear: after a crash in between, the later ones are still the older file.
        best_steps: Steps whose :func:`name_of_best` stays; ``None`` where none is written, and none removed.

    Returns:
        Names that were written or removed.

    Raises:
        OutputError: Read-only or full; the names stand for what they stood for.
    """
    new = folder / _NEW
    changed = list(names)
    AtomicCheckpointIO().save_checkpoint(checkpoint, new)
    for name in changed:
        publish_copy(new, folder / name)
    with writing_to(folder):
        new.unlink()
        if best_steps is not None:
            staying = {name_of_best(step) for step in best_steps}
            for path in folder.iterdir():
                if _BEST_OF_STEP.fullmatch(path.name) and path.name not in staying:
                    with freed_beside(path):
                        path.unlink()
                    changed.append(path.name)
    return changed


def remove_remains(folder: Path) -> None:
    """Remove what a process left that was killed while it saved."""
    for pattern in (f"*{_NEW}*", "*.ckpt.tmp", f"*{FREED}"):
        for remains in folder.glob(pattern):
            remains.unlink()


def collect_checkpoint(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """What the Trainer and its strategy would write to ``folder``; ``{}`` on all processes but the first.

    Every process has to call it.

    Raises:
        ConfigError: The strategy writes a folder of its own, not what it is asked to.
    """
    collector = _Collector()
    strategy = trainer.strategy
    usual, strategy.checkpoint_io = strategy.checkpoint_io, collector
    try:
        trainer.save_checkpoint(folder / _NEW, weights_only=False)
    finally:
        strategy.checkpoint_io = usual
    if trainer.is_global_zero and not collector.checkpoint:
        raise ConfigError(
            f"trainer.strategy: {type(strategy).__name__} writes each checkpoint as a folder",
            "set save_distributed_checkpoint to false",
        )
    return collector.checkpoint


class _Collector(CheckpointIO):
    """Takes a checkpoint instead of writing it."""

    def __init__(self) -> None:
        self.checkpoint: dict[str, Any] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        self.checkpoint = checkpoint

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        raise NotImplementedError

    def remove_checkpoint(self, path: str | Path) -> None:
        raise NotImplementedError
