"""``insight cache``: list the token stores of the cache, verify, pin and remove them."""

from __future__ import annotations

import argparse
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from insight.api.cache import cache_folder, clear_stores, list_stores, pin_stores, unpin_stores, verify_stores
from insight.cli.arguments import CommandParser, add_action, add_parameters
from insight.runtime.errors import ConfigError
from insight.runtime.json_files import print_json
from insight.runtime.messages import plain_line
from insight.runtime.numbers import require_number

if TYPE_CHECKING:
    from insight.data.store import StoreEntry

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHOWN_KEY = 12


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    return options.run(options) or 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight cache", description=__doc__.split(": ")[1])
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")
    listing = add_action(actions, "list", "every store: size, last use, source, whether it is in use", _list)
    summary = "compare every byte with the hashes; exit code 1 if a store is damaged"
    verify = add_action(actions, "verify", summary, _verify)
    add_parameters(verify, verify_stores, ("keys",), positional=("keys",))

    clear = add_action(actions, "clear", "remove stores that are neither in use nor pinned", _clear)
    which = clear.add_mutually_exclusive_group(required=True)
    about = "all of them, and what was set aside as damaged or left half-written"
    which.add_argument("--all", action="store_true", help=about)
    about = "this one, or the beginning of its key"
    which.add_argument("--key", action="append", metavar="KEY", help=about)
    about = "those not used for so long: 30d, 12h, 2w (s, m, h, d, w)"
    which.add_argument("--older_than", metavar="AGE", help=about)
    about = "those used longest ago, until the others fit into N"
    which.add_argument("--max_gigabytes", type=float, metavar="N", help=about)

    pin = add_action(actions, "pin", "keep stores whatever happens", _pin)
    unpin = add_action(actions, "unpin", "let them be removed again", _pin)
    for action in (pin, unpin):
        add_parameters(action, pin_stores, ("keys",), positional=("keys",))
    for action in (listing, verify, clear, pin, unpin):
        add_parameters(action, pin_stores, ("cache_dir",))
    return parser


def _list(options: argparse.Namespace) -> None:
    listing = list_stores(options.cache_dir)
    if options.json:
        about = {"cache_dir": listing.cache_dir, "bytes": listing.num_bytes}
        quarantine = {"folders": len(listing.quarantine), "bytes": listing.quarantine_bytes}
        stores = [_plain(entry) for entry in listing.stores]
        print_json({**about, "stores": stores, "quarantine": quarantine}, indent=1)
        return
    print(f"{listing.cache_dir}: {_count(len(listing.stores), 'store')}, {_size(listing.num_bytes)}")
    for entry in listing.stores:
        print(_line(entry, _described(entry)))
    if listing.quarantine:
        where = listing.cache_dir / "quarantine"
        print(f"  set aside as damaged: {_size(listing.quarantine_bytes)} in {where}")


def _verify(options: argparse.Namespace) -> int:
    entries = verify_stores(options.keys, options.cache_dir)
    num_damaged = sum(bool(entry.damage) for entry in entries)
    if options.json:
        about = {"cache_dir": cache_folder(options.cache_dir), "damaged": num_damaged}
        stores = [{"key": entry.key, "damage": entry.damage} for entry in entries]
        print_json({**about, "stores": stores}, indent=1)
    else:
        for entry in entries:
            print(_line(entry, entry.damage or "ok"))
        print(f"{_count(len(entries), 'store')}, {num_damaged or 'none'} damaged")
    return 1 if num_damaged else 0


def _clear(options: argparse.Namespace) -> None:
    gigabytes = options.max_gigabytes
    require_number("--max_gigabytes", gigabytes, 50, optional=True, at_least=0, below=1e9)
    cleared = clear_stores(
        keys=options.key,
        unused_seconds=_age(options.older_than) if options.older_than is not None else None,
        max_bytes=gigabytes * 1e9 if gigabytes is not None else None,
        cache_dir=options.cache_dir,
    )
    if options.json:
        about = {"cache_dir": cleared.cache_dir, "freed_bytes": cleared.freed_bytes}
        kept = [(item.entry, item.kept_because or None) for item in cleared.removals]
        stores = [{**_plain(entry), "kept_because": reason} for entry, reason in kept]
        print_json({**about, "stores": stores, "set_aside": cleared.num_set_aside}, indent=1)
        return
    for removal in cleared.removals:
        done = f"kept: {removal.kept_because}" if removal.kept_because else "removed"
        print(_line(removal.entry, f"{done}  {_described(removal.entry)}"))
    if cleared.leftover_bytes:
        size = _size(cleared.leftover_bytes)
        print(f"  removed what was set aside as damaged or left half-written: {size}")
    print(f"removed {_count(len(cleared.removed), 'store')}, {_size(cleared.freed_bytes)} freed")


def _pin(options: argparse.Namespace) -> None:
    act = pin_stores if options.ACTION == "pin" else unpin_stores
    keys = act(options.keys, options.cache_dir)
    if options.json:
        print_json({"cache_dir": cache_folder(options.cache_dir), options.ACTION: keys}, indent=1)
        return
    for key in keys:
        print(f"{options.ACTION}ned {key}")


def _age(text: str) -> float:
    match = _AGE.fullmatch(text)
    if match is None:
        remedy = "use a number and a unit: 90s, 30m, 12h, 30d"
        raise ConfigError("is not an age", remedy, option="--older_than", value=repr(text))
    return float(match[1]) * _SECONDS[match[2]]


def _plain(entry: StoreEntry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "key": entry.key,
        "path": entry.path,
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


def _line(entry: StoreEntry, words: str) -> str:
    return f"  {entry.key[:_SHOWN_KEY]}  {_size(entry.num_bytes):>10}  {words}"


def _described(entry: StoreEntry) -> str:
    seconds = max(0.0, time.time() - entry.last_used)
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _SECONDS[unit]), "s")
    words = [f"used {seconds / _SECONDS[unit]:.0f} {unit} ago"]
    words += ["in use"] * entry.is_in_use + ["pinned"] * entry.is_pinned
    if entry.manifest is None:
        words.append(entry.damage)
    else:
        files = [str(name) for name in entry.manifest.origin.get("files", [])]
        more = f" and {len(files) - 2} more" if len(files) > 2 else ""
        words += [f"{entry.manifest.num_tokens:,} tokens", f"{', '.join(files[:2])}{more}"]
    return plain_line(", ".join(words))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.2f} MB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
