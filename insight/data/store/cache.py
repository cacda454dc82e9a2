"""Find a store by its key or build it: one process builds while the others wait; damage is rebuilt."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from insight.data.sources.content_hashes import file_stamp
from insight.data.store.format import checked_key
from insight.data.store.inventory import StoreInventory
from insight.data.store.reader import TokenStore
from insight.runtime.errors import ConfigError, DataError, OutputError
from insight.runtime.files import atomic_write_text, publish_folder, writing_to
from insight.runtime.messages import say
from insight.runtime.numbers import require_number

# Smaller stores are checked at each opening (about 15 ms), larger ones only if their files changed.
_ALWAYS_VERIFIED_BYTES = 1 << 27


def default_cache_dir() -> Path:
    """``$INSIGHT_CACHE_DIR``, else ``~/.cache/insight``."""
    chosen = os.environ.get("INSIGHT_CACHE_DIR")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "insight"


def cache_limit(gigabytes: float | None = None) -> int | None:
    """Most bytes that the stores of a cache may take; ``None`` for no limit.

    Without ``gigabytes``, ``$INSIGHT_CACHE_GIGABYTES`` is used.

    Raises:
        ConfigError: The value is negative or not a number.
    """
    name, value = "cache_gigabytes", gigabytes
    if value is None:
        chosen = os.environ.get("INSIGHT_CACHE_GIGABYTES")
        if not chosen:
            return None
        name = "INSIGHT_CACHE_GIGABYTES"
        try:
            value = float(chosen)
        except ValueError:
            raise ConfigError("must be a number", "use e.g. 50", option=name, value=repr(chosen)) from None
    require_number(name, value, 50, at_least=0, at_most=1e9)
    return int(value * 1e9)


class StoreCache:
    """Stores below one folder, each in a folder named by its key.

    Args:
        root: The cache folder; it is created when a store is built.
        max_bytes: Most bytes that the stores may take together; ``None`` for no limit. After a build, the
            least recently used stores are removed until the others fit, unless they are in use or pinned.

    Raises:
        DataError: ``max_bytes`` is below 0.
    """

    def __init__(self, root: Path, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 0:
            remedy = "use 0 or more, or no limit"
            raise DataError("must be at least 0", remedy, option="max_bytes", value=max_bytes)
        self.root = Path(root)
        self._max_bytes = max_bytes
        self._stores = self.root / "stores"

    def find(self, key: str, *, is_known: bool = False) -> TokenStore | None:
        """The store with this key, or ``None``; every byte is checked unless it is large and unchanged.

        The bytes of a store that ``is_known``, because this process has just written it, were hashed then.

        Raises:
            DataError: The store is damaged, or ``key`` is not a valid key.
        """
        folder = self._stores / checked_key(key)
        if not folder.is_dir():
            return None
        store = TokenStore(folder)
        stamps = [file_stamp(path) for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".idx")]
        is_small = sum(size for size, *_ in stamps) < _ALWAYS_VERIFIED_BYTES
        stamp = json.dumps(stamps)
        record = self.root / "verified" / f"{key}.json"
        if not is_small and record.is_file() and record.read_bytes() == stamp.encode("utf-8"):
            return store
        if not is_known:
            store.verify()
        if not is_small:
            with contextlib.suppress(OutputError):  # A cache that is read-only can still be read.
                atomic_write_text(record, stamp)
        return store

    def find_or_build(self, key: str, build: Callable[[Path], None], title: str) -> TokenStore:
        """The store with this key; it is built if it is missing or damaged.

        Args:
            key: The result of :func:`insight.data.store.format.store_key`.
            build: Writes the store into the empty folder it is given. One process calls it at a time.
            title: Name of the text in messages.

        Raises:
            DataError: ``key`` is not a valid key.
            OutputError: The cache folder cannot be written to.
        """
        return self.find_or_build_together([key], build, title)[0]

    def find_or_build_together(
        self, keys: Sequence[str], build: Callable[..., None], title: str
    ) -> list[TokenStore]:
        """The stores with these keys, which always belong together; all are built if one is missing.

        Args:
            keys: The key of each store.
            build: Writes the stores into the empty folders that are its arguments, in the order of the keys.
            title: Name of the text in messages.

        Raises:
            DataError: A key is not valid.
            OutputError: The cache folder cannot be written to.
        """
        for key in keys:
            checked_key(key)
        # The process that holds the lock checks a damaged store again and replaces it.
        with contextlib.suppress(DataError):
            found = [self.find(key) for key in keys]
            if None not in found:
                return [store for store in found if store is not None]
        try:
            with writing_to(self.root):
                self._stores.mkdir(parents=True, exist_ok=True)
                # The lock file stays: if it were removed, two processes could hold the lock at once.
                lock = FileLock(self._stores / f"{keys[0]}.lock")
                try:
                    held = lock.acquire(timeout=0)
                except Timeout:
                    say(f"waiting for another process that is encoding {title}")
                    held = lock.acquire()
                with held:
                    found = [self._find_sound(key, title) for key in keys]
                    if None in found:
                        found = self._build(keys, build)
                self._evict(keys)
                return [store for store in found if store is not None]
        except OutputError as error:
            raise OutputError(f"cache_dir={error.problem}", "set cache_dir or INSIGHT_CACHE_DIR") from error

    def _find_sound(self, key: str, title: str) -> TokenStore | None:
        """The store with this key, or ``None``; a damaged one is set aside."""
        try:
            return self.find(key)
        except DataError as error:
            self._quarantine(key, error, title)
            return None

    def _build(self, keys: Sequence[str], build: Callable[..., None]) -> list[TokenStore | None]:
        # With the lock held, temporary folders of this key are leftovers of killed processes.
        for stale in self._stores.glob(f".{keys[0]}.*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        # All are named by the key whose lock is held.
        temporary = [
            Path(tempfile.mkdtemp(prefix=f".{keys[0]}.", suffix=".tmp", dir=self._stores)) for _ in keys
        ]
        try:
            build(*temporary)
            are_ours = []
            for folder, key in zip(temporary, keys, strict=True):
                os.chmod(folder, 0o755)
                are_ours.append(publish_folder(folder, self._stores / key))
        finally:
            for folder in temporary:
                shutil.rmtree(folder, ignore_errors=True)
        stores: list[TokenStore | None] = []
        for key, is_ours in zip(keys, are_ours, strict=True):
            if (store := self.find(key, is_known=is_ours)) is None:
                problem = f"{self._stores / key}: vanished while it was built"
                raise DataError(problem, "is something clearing the cache?")
            stores.append(store)
        return stores

    def _evict(self, keys: Sequence[str]) -> None:
        if self._max_bytes is None:
            return
        for removal in StoreInventory(self.root).shrink(self._max_bytes, keep=keys):
            tokens = f"the tokens {removal.entry.key} ({removal.entry.num_bytes / 1e6:,.1f} MB)"
            if removal.kept_because:
                say(f"the cache is over its limit; {tokens} are {removal.kept_because}")
            else:
                say(f"removed {tokens}, which were used longest ago, from the cache")

    def _quarantine(self, key: str, error: DataError, title: str) -> None:
        """Move a damaged store aside and keep it for inspection."""
        quarantine = self.root / "quarantine"
        quarantine.mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=quarantine))
        try:
            os.replace(self._stores / key, target / key)
        except FileNotFoundError:  # The store was evicted while it was being opened.
            target.rmdir()
            return
        say(f"the cached tokens of {title} are damaged ({error.problem}); moved to {target}, encoding again")
