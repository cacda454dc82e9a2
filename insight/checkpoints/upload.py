"""Uploads checkpoints to any location that fsspec supports, in the background."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec

from insight.runtime.errors import ConfigError
from insight.runtime.messages import say
from insight.runtime.run_folder import run_of_checkpoint

_CHUNK_BYTES = 16 << 20


class CheckpointUpload:
    """Mirrors the local folder in another location.

    A failed copy is reported in one line and tried again with the next checkpoint; training continues. If
    a copy takes longer than the time between two checkpoints, the newest checkpoint is copied next.
    ``url`` is a folder for fsspec, e.g. ``s3://bucket/run`` or ``/mnt/backup/run``.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        # Names in their order, with whether the file is new. An earlier process may have been killed before
        # it had copied the checkpoints that are kept permanently.
        self._waiting = {path.name: False for path in sorted(folder.glob("step-*.ckpt"))}
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")

    def submit(self, names: Iterable[str]) -> None:
        """Start to copy files, or to remove those that are no longer in the folder."""
        with self._lock:
            self._waiting |= dict.fromkeys(names, True)
        self._thread.submit(self._work)

    def finish(self) -> None:
        """Wait until everything is copied; try failed copies once more, and report a second failure."""
        self._thread.submit(self._work)
        self._thread.shutdown()
        if self._waiting:
            say(f"upload: {', '.join(self._waiting)} not copied to {self._url}")

    def _work(self) -> None:
        with self._lock:
            names, self._waiting = self._waiting, {}
        failed, reason = {}, ""
        copied: dict[tuple[int, int, int], str] = {}
        for name, is_new in names.items():
            try:
                self._copy(name, is_new, copied)
            except Exception as error:  # no failure of the target may end the training
                failed[name] = is_new
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if failed:
            with self._lock:
                self._waiting = failed | self._waiting
            failure = f"upload: {', '.join(failed)} cannot be copied to {self._url} ({reason})"
            say(f"{failure}; tried again with the next checkpoint")

    def _copy(self, name: str, is_new: bool, copied: dict[tuple[int, int, int], str]) -> None:
        """Copy one file; one that is in ``copied`` under another name is copied within the target."""
        filesystem, folder = fsspec.core.url_to_fs(self._url)
        source, target = self._folder / name, f"{folder}/{name}"
        if not source.is_file():
            if filesystem.exists(target):
                filesystem.rm_file(target)
            return
        if not is_new and filesystem.exists(target):
            return
        filesystem.makedirs(folder, exist_ok=True)
        # Use another name first, since some filesystems show incomplete files.
        part = f"{target}.part"
        # An open file keeps its contents when its name is given to a newer file.
        with source.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
            is_there = False
            with contextlib.suppress(
                Exception
            ):  # the upload of the bytes, which follows, reports what is wrong
                if identity in copied:
                    filesystem.cp_file(copied[identity], part)
                    is_there = True
            if not is_there:
                with filesystem.open(part, "wb") as copy:
                    shutil.copyfileobj(file, copy, _CHUNK_BYTES)
        filesystem.mv(part, target)
        copied[identity] = target


def upload_folder(url: str, folder: Path) -> str:
    """The target for the checkpoints in ``folder``: ``url``, and below it the run's name and number."""
    run = run_of_checkpoint(folder / "last.ckpt")
    parts = [] if run is None else [run.path.parent.name, run.path.name]
    return "/".join([url.rstrip("/"), *parts])


def check_upload_url(url: str) -> None:
    """Refuse a URL whose protocol fsspec or its packages do not know with a :class:`ConfigError`."""
    try:
        fsspec.get_filesystem_class(fsspec.utils.get_protocol(url))
    except (ValueError, ImportError) as error:
        remedy = "install the package for it, or use the path of a folder"
        raise ConfigError(str(error), remedy, option="upload_to", value=url) from error
