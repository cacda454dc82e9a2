"""The token store: token ids on disk, written once, published whole, memory-mapped ever after."""

from insight.data.store.cache import StoreCache, cache_limit, default_cache_dir
from insight.data.store.format import FORMAT_VERSION, Manifest, Shard, store_key
from insight.data.store.inventory import Removal, StoreEntry, StoreInventory
from insight.data.store.reader import TokenStore
from insight.data.store.writer import StoreWriter

__all__ = [
    "FORMAT_VERSION",
    "Manifest",
    "Removal",
    "Shard",
    "StoreCache",
    "StoreEntry",
    "StoreInventory",
    "StoreWriter",
    "TokenStore",
    "cache_limit",
    "default_cache_dir",
    "store_key",
]
