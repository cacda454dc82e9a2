"""The cache of token ids: list, verify, pin and remove its stores. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from insight.data.store import Removal, StoreEntry, StoreInventory, default_cache_dir
from insight.data.store.inventory import folder_bytes
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number


@dataclass(frozen=True)
class CacheListing:
    """The contents of a cache folder.

    Attributes:
        cache_dir: The folder.
        stores: All stores, the most recently used first.
        quarantine: Folders of damaged stores that were set aside.
        quarantine_bytes: Bytes of these folders.
    """

    cache_dir: Path
    stores: tuple[StoreEntry, ...]
    quarantine: tuple[Path, ...]
    quarantine_bytes: int

    @property
    def num_bytes(self) -> int:
        """Bytes of all stores together."""
        return sum(entry.num_bytes for entry in self.stores)


@dataclass(frozen=True)
class Clearance:
    """The result of clearing a cache folder.

    Attributes:
        cache_dir: The folder.
        removals: The stores that were to be removed, each with the reason if it was kept.
        num_set_aside: Folders of damaged stores that were removed.
        leftover_bytes: Bytes of these folders and of half-written stores of killed processes.
    """

    cache_dir: Path
    removals: tuple[Removal, ...]
    num_set_aside: int = 0
    leftover_bytes: int = 0

    @property
    def removed(self) -> list[StoreEntry]:
        """The stores that were removed."""
        return [removal.entry for removal in self.removals if not removal.kept_because]

    @property
    def freed_bytes(self) -> int:
        """Bytes of disk space that were freed."""
        return sum(entry.num_bytes for entry in self.removed) + self.leftover_bytes


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The cache folder: ``cache_dir``, else ``$INSIGHT_CACHE_DIR`` or ``~/.cache/insight``."""
    return Path(cache_dir).expanduser() if cache_dir else default_cache_dir()


def list_stores(cache_dir: str | Path | None = None) -> CacheListing:
    """List every store of a cache; ``cache_dir`` is chosen as in :func:`cache_folder`."""
    inventory = StoreInventory(cache_folder(cache_dir))
    quarantine = tuple(inventory.quarantined())
    size = sum(map(folder_bytes, quarantine))
    return CacheListing(inventory.root, tuple(inventory.entries()), quarantine, size)


def verify_stores(keys: Sequence[str] = (), cache_dir: str | Path | None = None) -> list[StoreEntry]:
    """Compare every byte of stores with the hashes in their manifests; ``damage`` of each tells the result.

    Args:
        keys: Stores, or the beginnings of their keys; all stores if there are none.
        cache_dir: The cache; without it $INSIGHT_CACHE_DIR or ~/.cache/insight.

    Raises:
        ConfigError: A key names no store, or several.
    """
    inventory = StoreInventory(cache_folder(cache_dir))
    entries = _chosen(inventory, keys) or inventory.entries()
    return [dataclasses.replace(entry, damage=inventory.verify(entry)) for entry in entries]


def clear_stores(
    *,
    keys: Iterable[str] | None = None,
    unused_seconds: float | None = None,
    max_bytes: float | None = None,
    cache_dir: str | Path | None = None,
) -> Clearance:
    """Remove stores that no process has open and that are not pinned.

    Without any of the first three arguments it removes all of them, damaged stores that were set aside, and
    half-written stores of killed processes.

    Args:
        keys: Keys of the stores to remove, or their beginnings.
        unused_seconds: Remove stores that were not used for this long, and damaged ones set aside this long
            ago.
        max_bytes: Remove the least recently used stores until the others take at most this many bytes.
        cache_dir: The cache folder; by default as in :func:`cache_folder`.

    Raises:
        ConfigError: A key names no store or several, a number is negative, or more than one choice is made.
        OutputError: The cache folder cannot be written to.
    """
    if sum(choice is not None for choice in (keys, unused_seconds, max_bytes)) > 1:
        raise ConfigError("keys, unused_seconds and max_bytes are three choices", "give one of them")
    for name, number in (("unused_seconds", unused_seconds), ("max_bytes", max_bytes)):
        require_number(name, number, 0, optional=True, at_least=0)
    inventory = StoreInventory(cache_folder(cache_dir))
    if max_bytes is not None:
        return Clearance(inventory.root, tuple(inventory.shrink(int(max_bytes))))
    if keys is not None:
        return Clearance(inventory.root, tuple(map(inventory.remove, _chosen(inventory, keys))))
    leftover_bytes = inventory.remove_leftovers() if unused_seconds is None else 0
    latest = time.time() - unused_seconds if unused_seconds is not None else float("inf")
    entries = [entry for entry in inventory.entries() if entry.last_used <= latest]
    removals = tuple(map(inventory.remove, entries))
    set_aside = [path for path in inventory.quarantined() if path.stat().st_mtime <= latest]
    leftover_bytes += sum(map(folder_bytes, set_aside))
    for path in set_aside:
        shutil.rmtree(path, ignore_errors=True)
    return Clearance(inventory.root, removals, len(set_aside), leftover_bytes)


def pin_stores(keys: Sequence[str], cache_dir: str | Path | None = None) -> list[str]:
    """Keep stores until :func:`unpin_stores`, regardless of the limit of the cache; returns their full keys.

    Args:
        keys: Stores, or the beginnings of their keys.
        cache_dir: The cache; without it $INSIGHT_CACHE_DIR or ~/.cache/insight.

    Raises:
        ConfigError: A key names no store, or several.
        OutputError: The cache folder cannot be written to.
    """
    inventory = StoreInventory(cache_folder(cache_dir))
    chosen = [entry.key for entry in _chosen(inventory, keys)]
    for key in chosen:
        inventory.pin(key)
    return chosen


def unpin_stores(keys: Sequence[str], cache_dir: str | Path | None = None) -> list[str]:
    """Allow pinned stores to be removed again; see :func:`pin_stores`.

    Raises:
        DataError: A store is not pinned.
    """
    inventory = StoreInventory(cache_folder(cache_dir))
    chosen = [entry.key for entry in _chosen(inventory, keys)]
    for key in chosen:
        inventory.unpin(key)
    return chosen


def _chosen(inventory: StoreInventory, keys: Iterable[str]) -> list[StoreEntry]:
    """The stores whose keys begin with ``keys``; each must identify one store, or the sides of one text."""
    entries = inventory.entries()
    chosen: dict[str, StoreEntry] = {}
    for key in keys:
        found = [entry for entry in entries if key and entry.key.startswith(key)]
        # The stores of parallel text share a key, which the name of each side follows.
        num_texts = len({entry.key.partition("-")[0] for entry in found})
        if num_texts != 1:
            number = f"{num_texts} stores" if found else "no store"
            problem = f"{number} of {inventory.root} with this beginning"
            raise ConfigError(problem, "see `insight cache list`", option="KEY", value=repr(key))
        chosen |= {entry.key: entry for entry in found}
    return list(chosen.values())
