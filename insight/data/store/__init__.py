"""The token store: token ids on disk, written once, published atomically, memory-mapped for reading."""

from insight.data.store.cache import StoreCache as StoreCache
from insight.data.store.cache import cache_limit as cache_limit
from insight.data.store.cache import default_cache_dir as default_cache_dir
from insight.data.store.format import FORMAT_VERSION as FORMAT_VERSION
from insight.data.store.format import Manifest as Manifest
from insight.data.store.format import Shard as Shard
from insight.data.store.format import store_key as store_key
from insight.data.store.inventory import Removal as Removal
from insight.data.store.inventory import StoreEntry as StoreEntry
from insight.data.store.inventory import StoreInventory as StoreInventory
from insight.data.store.reader import TokenStore as TokenStore
from insight.data.store.writer import StoreWriter as StoreWriter
