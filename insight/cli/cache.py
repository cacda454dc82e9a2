"""``insight cache``: list the token stores that were kept, verify, pin and remove them; no torch."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.cli.arguments import CommandParser
from insight.runtime.errors import ConfigError

if TYPE_CHECKING:
    from insight.data.store import Removal, StoreEntry, StoreInventory

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHOWN_KEY = 12


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    exit_code: int = options.action(options)
    return exit_code


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight cache", description=__doc__.split(": ")[1])
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")

    listing = actions.add_parser("list", help="every store: size, last use, source, whether it is in use")
    _add_common(listing)
    listing.set_defaults(action=_list)

    verify = actions.add_parser(
        "verify", help="compare every byte with the hashes; exit code 1 if a store is damaged"
    )
    verify.add_argument("keys", nargs="*", metavar="KEY", help="stores, or how their keys begin; else all")
    _add_common(verify)
    verify.set_defaults(action=_verify)

    clear = actions.add_parser("clear", help="remove stores that are neither in use nor pinned")
    which = clear.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--all",
        action="store_true",
        help="all of them, and what was set aside as damaged or left half-written",
    )
    which.add_argument("--key", action="append", metavar="KEY", help="this one, or the beginning of its key")
    which.add_argument(
        "--older_than", metavar="AGE", help="those not used for so long: 30d, 12h, 2w (s, m, h, d, w)"
    )
    which.add_argument(
        "--max_gigabytes", type=float, metavar="N", help="those used longest ago, until the others fit into N"
    )
    _add_common(clear)
    clear.set_defaults(action=_clear)

    for word, summary in (("pin", "keep stores whatever happens"), ("unpin", "let them be removed again")):
        action = actions.add_parser(word, help=summary)
        action.add_argument("keys", nargs="+", metavar="KEY", help="a store, or the beginning of its key")
        _add_common(action)
        action.set_defaults(action=_pin)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache_dir", metavar="FOLDER", help="the cache (default: $INSIGHT_CACHE_DIR or ~/.cache/insight)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _list(options: argparse.Namespace) -> int:
    from insight.data.store.inventory import folder_bytes

    inventory = _inventory(options)
    entries = inventory.entries()
    quarantined = inventory.quarantined()
    total, aside = sum(entry.num_bytes for entry in entries), sum(map(folder_bytes, quarantined))
    if options.json:
        return _print_json(
            {
                "cache_dir": str(inventory.root),
                "bytes": total,
                "stores": [_plain(entry) for entry in entries],
                "quarantine": {"folders": len(quarantined), "bytes": aside},
            }
        )
    print(f"{inventory.root}: {_count(len(entries), 'store')}, {_size(total)}")
    for entry in entries:
        print(f"  {entry.key[:_SHOWN_KEY]}  {_size(entry.num_bytes):>10}  {_described(entry)}")
    if quarantined:
        print(f"  set aside as damaged: {_size(aside)} in {inventory.root / 'quarantine'}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    inventory = _inventory(options)
    entries = _chosen(inventory, options.keys) if options.keys else inventory.entries()
    results = [(entry, inventory.verify(entry)) for entry in entries]
    damaged = sum(bool(problem) for _, problem in results)
    if options.json:
        stores = [{"key": entry.key, "damage": problem} for entry, problem in results]
        _print_json({"cache_dir": str(inventory.root), "damaged": damaged, "stores": stores})
    else:
        for entry, problem in results:
            print(f"  {entry.key[:_SHOWN_KEY]}  {_size(entry.num_bytes):>10}  {problem or 'ok'}")
        print(f"{_count(len(results), 'store')}, {damaged or 'none'} damaged")
    return 1 if damaged else 0


def _clear(options: argparse.Namespace) -> int:
    from insight.data.store.inventory import folder_bytes, seconds_since

    inventory = _inventory(options)
    aside: list[Path] = []
    leftover_bytes = inventory.remove_leftovers() if options.all else 0
    if options.max_gigabytes is not None:
        if not options.max_gigabytes >= 0:
            raise ConfigError(f"--max_gigabytes={options.max_gigabytes}: must be at least 0", "use e.g. 50")
        removals = inventory.shrink(int(options.max_gigabytes * 1e9))
    else:
        if options.key:
            entries = _chosen(inventory, options.key)
        else:
            age = 0.0 if options.all else _age(options.older_than)
            entries = [entry for entry in inventory.entries() if seconds_since(entry.last_used) >= age]
            aside = [path for path in inventory.quarantined() if seconds_since(path.stat().st_mtime) >= age]
        removals = [inventory.remove(entry) for entry in entries]
    aside_bytes = leftover_bytes + sum(map(folder_bytes, aside))
    for path in aside:
        shutil.rmtree(path, ignore_errors=True)
    _report_removals(inventory, removals, len(aside), aside_bytes, options.json)
    return 0


def _report_removals(
    inventory: StoreInventory, removals: list[Removal], num_aside: int, aside_bytes: int, as_json: bool
) -> None:
    removed = [removal for removal in removals if not removal.kept_because]
    freed = sum(removal.entry.num_bytes for removal in removed) + aside_bytes
    if as_json:
        stores = [{**_plain(item.entry), "kept_because": item.kept_because or None} for item in removals]
        _print_json(
            {"cache_dir": str(inventory.root), "freed_bytes": freed, "stores": stores, "set_aside": num_aside}
        )
        return
    for removal in removals:
        done = f"kept: {removal.kept_because}" if removal.kept_because else "removed"
        entry = removal.entry
        print(f"  {entry.key[:_SHOWN_KEY]}  {_size(entry.num_bytes):>10}  {done}  {_described(entry)}")
    if aside_bytes:
        print(f"  removed what was set aside as damaged or left half-written: {_size(aside_bytes)}")
    print(f"removed {_count(len(removed), 'store')}, {_size(freed)} freed")


def _pin(options: argparse.Namespace) -> int:
    inventory = _inventory(options)
    keys = [entry.key for entry in _chosen(inventory, options.keys)]
    for key in keys:
        if options.ACTION == "pin":
            inventory.pin(key)
        else:
            inventory.unpin(key)
    if options.json:
        return _print_json({"cache_dir": str(inventory.root), options.ACTION: keys})
    for key in keys:
        print(f"{options.ACTION}ned {key}")
    return 0


def _inventory(options: argparse.Namespace) -> StoreInventory:
    from insight.data.preparation import default_cache_dir
    from insight.data.store import StoreInventory

    return StoreInventory(Path(options.cache_dir).expanduser() if options.cache_dir else default_cache_dir())


def _chosen(inventory: StoreInventory, keys: list[str]) -> list[StoreEntry]:
    """The stores whose keys begin so, each exactly one."""
    entries = inventory.entries()
    chosen: dict[str, StoreEntry] = {}
    for key in keys:
        found = [entry for entry in entries if key and entry.key.startswith(key)]
        if len(found) != 1:
            number = "no store" if not found else f"{len(found)} stores"
            raise ConfigError(
                f"KEY={key!r}: {number} of {inventory.root} with this beginning", "see `insight cache list`"
            )
        chosen[found[0].key] = found[0]
    return list(chosen.values())


def _age(text: str) -> float:
    match = _AGE.fullmatch(text)
    if match is None:
        raise ConfigError(f"--older_than={text!r}: not an age", "use a number and a unit: 90s, 30m, 12h, 30d")
    return float(match[1]) * _SECONDS[match[2]]


def _plain(entry: StoreEntry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "key": entry.key,
        "path": str(entry.path),
        "bytes": entry.num_bytes,
        "made": _moment(entry.made),
        "last_used": _moment(entry.last_used),
        "in_use": entry.is_in_use,
        "pinned": entry.is_pinned,
        "damage": entry.damage or None,
        "sources": manifest.origin.get("files", []) if manifest else [],
        "division": manifest.origin.get("division", "") if manifest else "",
        "tokens": manifest.num_tokens if manifest else None,
        "documents": manifest.num_documents if manifest else None,
        "text_bytes": manifest.num_bytes if manifest else None,
        "tokenizer": manifest.tokenizer_fingerprint if manifest else None,
    }


def _described(entry: StoreEntry) -> str:
    from insight.data.store.inventory import seconds_since
    from insight.runtime.messages import plain_line

    words = [f"used {_ago(seconds_since(entry.last_used))} ago"]
    words += ["in use"] * entry.is_in_use + ["pinned"] * entry.is_pinned
    if entry.manifest is None:
        words.append(entry.damage)
    else:
        files = [str(name) for name in entry.manifest.origin.get("files", [])]
        more = f" and {len(files) - 2} more" if len(files) > 2 else ""
        words += [f"{entry.manifest.num_tokens:,} tokens", f"{', '.join(files[:2])}{more}"]
    return plain_line(", ".join(words))


def _ago(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit]:
            return f"{seconds / _SECONDS[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.2f} MB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_json(value: dict[str, Any]) -> int:
    print(json.dumps(value, indent=1))
    return 0
