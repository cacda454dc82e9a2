"""Checkpoint files that are complete or not there, for every save that the Trainer does."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.serialization import config

from insight.runtime.direct_file import DISK_BLOCK
from insight.runtime.errors import OutputError
from insight.runtime.files import LARGE_BYTES, atomic_file, flush, freed_beside, writing_to


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
