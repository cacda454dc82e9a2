"""Manage the stores of a cache: list, verify, pin, remove and evict them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from insight.data.store.format import MANIFEST_NAME, Manifest, checked_key, read_manifest, wrong_key
from insight.data.store.reader import TokenStore, unused
from insight.runtime.errors import DataError
from insight.runtime.files import atomic_write_bytes, writing_to


@dataclass(frozen=True)
class StoreEntry:
    """One store of a cache.

    Attributes:
        key: Name of the store.
        path: Folder of the store.
        num_bytes: Size of its files in bytes.
        made: When it was written, seconds since 1970.
        last_used: When it was last opened, seconds since 1970.
        is_in_use: Whether a live process has it open.
        is_pinned: Whether the user has pinned it, so that it is never removed.
        manifest: The manifest; ``None`` if it is damaged.
        damage: The fault found so far; ``""`` if none was found.
    """

    key: str
    path: Path
    num_bytes: int
    made: float
    last_used: float
    is_in_use: bool
    is_pinned: bool
    manifest: Manifest | None
    damage: str


@dataclass(frozen=True)
class Removal:
    """The result of removing a store: ``""`` if it is gone, else why it was kept (in use or pinned)."""

    entry: StoreEntry
    kept_because: str


class StoreInventory:
    """The stores below a cache folder, which need not exist.

    An ``OutputError`` says that the folder cannot be written to; a ``DataError`` that there is no such store.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._stores = self.root / "stores"
        self._pins = self.root / "pinned"

    def entries(self) -> list[StoreEntry]:
        """All stores, the most recently used first."""
        if not self._stores.is_dir():
            return []
        folders = [path for path in self._stores.iterdir() if path.is_dir() and path.name[0] != "."]
        found = []
        for folder in sorted(folders):
            with contextlib.suppress(FileNotFoundError):  # Another process evicts it at this moment.
                found.append(self._entry(folder))
        return sorted(found, key=lambda entry: -entry.last_used)

    def entry(self, key: str) -> StoreEntry:
        """One store."""
        folder = self._stores / checked_key(key)
        if not folder.is_dir():
            raise wrong_key(f"no such store in {self.root}", key)
        return self._entry(folder)

    def verify(self, entry: StoreEntry) -> str:
        """Check every byte of a store and return the fault found, or ``""``."""
        try:
            TokenStore(entry.path, is_use=False).verify()
        except DataError as error:
            return error.problem
        except OSError as error:
            return f"{entry.path}: cannot be read ({error.strerror or error})"
        return ""

    def pin(self, key: str) -> None:
        """Protect a store from removal, also when it is damaged and built again."""
        atomic_write_bytes(self._pins / self.entry(key).key, b"")

    def unpin(self, key: str) -> None:
        """Allow a store to be removed again."""
        pin = self._pins / checked_key(key)
        if not pin.exists():
            raise wrong_key("is not pinned", key)
        with writing_to(pin):
            pin.unlink(missing_ok=True)

    def remove(self, entry: StoreEntry) -> Removal:
        """Remove a store unless it is pinned or a live process has it open."""
        if (self._pins / entry.key).exists():
            return Removal(entry, "pinned")
        with writing_to(entry.path):
            with unused(entry.path) as is_unused:
                if not is_unused:
                    return Removal(entry, "in use")
                # The rename is atomic; leftovers of a process that dies here are removed later.
                grave = Path(tempfile.mkdtemp(prefix=f".{entry.key}.", suffix=".tmp", dir=self._stores))
                try:
                    os.rename(entry.path, grave / entry.key)
                except FileNotFoundError:
                    pass  # Another process was faster.
                finally:
                    shutil.rmtree(grave, ignore_errors=True)
            (self.root / "verified" / f"{entry.key}.json").unlink(missing_ok=True)
        return Removal(entry, "")

    def shrink(self, max_bytes: int, keep: Collection[str] = ()) -> list[Removal]:
        """Remove the least recently used stores, but none of ``keep``, until the rest fits into the limit.

        Returns a result for every store chosen for removal, whether it was removed or kept.
        """
        if max_bytes < 0:
            raise DataError("must be at least 0", "use 0 or more", option="max_bytes", value=max_bytes)
        entries = self.entries()
        total = sum(entry.num_bytes for entry in entries)
        removals = []
        for entry in reversed(entries):
            if total <= max_bytes:
                break
            if entry.key in keep:
                continue
            removal = self.remove(entry)
            removals.append(removal)
            total -= 0 if removal.kept_because else entry.num_bytes
        return removals

    def remove_leftovers(self) -> int:
        """Remove half-written stores of killed processes, not those being written; return the bytes freed."""
        freed = 0
        for folder in sorted(self._stores.glob(".*.tmp")) if self._stores.is_dir() else []:
            key = folder.name.split(".")[1]
            lock = FileLock(self._stores / f"{key}.lock", timeout=0)
            with writing_to(folder), contextlib.suppress(Timeout), lock:
                freed += folder_bytes(folder)
                shutil.rmtree(folder, ignore_errors=True)
        return freed

    def quarantined(self) -> list[Path]:
        """Folders of damaged stores that were set aside."""
        folder = self.root / "quarantine"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _entry(self, folder: Path) -> StoreEntry:
        stats = {path: path.stat() for path in folder.iterdir()}
        shards = [stat for path, stat in stats.items() if path.suffix in (".bin", ".idx")]
        manifest, damage = None, ""
        try:
            manifest = read_manifest(folder)
        except DataError as error:
            damage = error.problem
        file = folder / MANIFEST_NAME
        with unused(folder) as is_unused:
            pass
        return StoreEntry(
            key=folder.name,
            path=folder,
            num_bytes=sum(stat.st_size for stat in stats.values()),
            made=max((stat.st_mtime for stat in shards), default=folder.stat().st_mtime),
            # Opening a store updates the modification time of its manifest.
            last_used=(stats[file] if file in stats else folder.stat()).st_mtime,
            is_in_use=not is_unused,
            is_pinned=(self._pins / folder.name).exists(),
            manifest=manifest,
            damage=damage,
        )


def folder_bytes(folder: Path) -> int:
    """Total size in bytes of the files below ``folder``."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
