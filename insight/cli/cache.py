"""``insight cache``: list the token stores of the cache, verify, pin and remove them."""

from __future__ import annotations

import argparse
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from insight.cli.arguments import CommandParser
from insight.runtime.errors import ConfigError
from insight.runtime.json_files import print_json
from insight.runtime.messages import plain_line

if TYPE_CHECKING:
    from insight.api.cache import Clearance
    from insight.data.store import StoreEntry

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
    from insight.api.cache import list_stores

    listing = list_stores(options.cache_dir)
    if options.json:
        quarantine = {"folders": len(listing.quarantine), "bytes": listing.quarantine_bytes}
        return _print_json(
            cache_dir=str(listing.cache_dir),
            bytes=listing.num_bytes,
            stores=[_plain(entry) for entry in listing.stores],
            quarantine=quarantine,
        )
    print(f"{listing.cache_dir}: {_count(len(listing.stores), 'store')}, {_size(listing.num_bytes)}")
    for entry in listing.stores:
        print(_line(entry, _described(entry)))
    if listing.quarantine:
        where = listing.cache_dir / "quarantine"
        print(f"  set aside as damaged: {_size(listing.quarantine_bytes)} in {where}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from insight.api.cache import cache_folder, verify_stores

    entries = verify_stores(options.keys, options.cache_dir)
    num_damaged = sum(bool(entry.damage) for entry in entries)
    if options.json:
        _print_json(
            cache_dir=str(cache_folder(options.cache_dir)),
            damaged=num_damaged,
            stores=[{"key": entry.key, "damage": entry.damage} for entry in entries],
        )
    else:
        for entry in entries:
            print(_line(entry, entry.damage or "ok"))
        print(f"{_count(len(entries), 'store')}, {num_damaged or 'none'} damaged")
    return 1 if num_damaged else 0


def _clear(options: argparse.Namespace) -> int:
    from insight.api.cache import clear_stores

    gigabytes = options.max_gigabytes
    if gigabytes is not None and not 0 <= gigabytes < 1e9:
        raise ConfigError(
            "must be at least 0 and below 1e9", "use e.g. 50", option="--max_gigabytes", value=gigabytes
        )
    cleared = clear_stores(
        keys=options.key,
        unused_seconds=_age(options.older_than) if options.older_than is not None else None,
        max_bytes=gigabytes * 1e9 if gigabytes is not None else None,
        cache_dir=options.cache_dir,
    )
    if options.json:
        return _print_json(
            cache_dir=str(cleared.cache_dir),
            freed_bytes=cleared.freed_bytes,
            stores=[
                {**_plain(item.entry), "kept_because": item.kept_because or None} for item in cleared.removals
            ],
            set_aside=cleared.num_set_aside,
        )
    _print_removals(cleared)
    return 0


def _print_removals(cleared: Clearance) -> None:
    for removal in cleared.removals:
        done = f"kept: {removal.kept_because}" if removal.kept_because else "removed"
        print(_line(removal.entry, f"{done}  {_described(removal.entry)}"))
    if cleared.leftover_bytes:
        print(
            f"  removed what was set aside as damaged or left half-written: {_size(cleared.leftover_bytes)}"
        )
    print(f"removed {_count(len(cleared.removed), 'store')}, {_size(cleared.freed_bytes)} freed")


def _pin(options: argparse.Namespace) -> int:
    from insight.api.cache import cache_folder, pin_stores, unpin_stores

    act = pin_stores if options.ACTION == "pin" else unpin_stores
    keys = act(options.keys, options.cache_dir)
    if options.json:
        cache_dir = str(cache_folder(options.cache_dir))
        return _print_json(**{"cache_dir": cache_dir, options.ACTION: keys})
    for key in keys:
        print(f"{options.ACTION}ned {key}")
    return 0


def _age(text: str) -> float:
    match = _AGE.fullmatch(text)
    if match is None:
        raise ConfigError(
            "is not an age",
            "use a number and a unit: 90s, 30m, 12h, 30d",
            option="--older_than",
            value=repr(text),
        )
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


def _line(entry: StoreEntry, words: str) -> str:
    return f"  {entry.key[:_SHOWN_KEY]}  {_size(entry.num_bytes):>10}  {words}"


def _described(entry: StoreEntry) -> str:
    words = [f"used {_ago(entry.last_used)} ago"]
    words += ["in use"] * entry.is_in_use + ["pinned"] * entry.is_pinned
    if entry.manifest is None:
        words.append(entry.damage)
    else:
        files = [str(name) for name in entry.manifest.origin.get("files", [])]
        more = f" and {len(files) - 2} more" if len(files) > 2 else ""
        words += [f"{entry.manifest.num_tokens:,} tokens", f"{', '.join(files[:2])}{more}"]
    return plain_line(", ".join(words))


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
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


def _print_json(**values: Any) -> int:
    print_json(values, indent=1)
    return 0
