"""``insight tokenizer``: train a tokenizer, encode and decode with it, look inside. Needs no torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from insight.cli.arguments import CommandParser, read_standard_input
from insight.runtime.errors import OutputError, TokenizerError
from insight.runtime.messages import plain_line, say

if TYPE_CHECKING:
    from insight.data.tokenizers import BaseTokenizer


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    exit_code: int = options.action(options)
    return exit_code


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight tokenizer", description=__doc__.split(": ")[1])
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")

    train = actions.add_parser("train", help="train a byte-level BPE tokenizer on text")
    train.add_argument("files", nargs="+", metavar="FILES", help="files, folders, globs or corpus:NAME")
    train.add_argument("--output", required=True, metavar="FILE", help="the tokenizer.json to write")
    train.add_argument(
        "--vocabulary_size", type=int, default=2048, metavar="N", help="number of tokens (default: 2048)"
    )
    train.add_argument(
        "--min_frequency", type=int, default=2, metavar="N", help="a pair must occur this often (default: 2)"
    )
    train.add_argument(
        "--text_field",
        default="text",
        metavar="NAME",
        help="field of .jsonl, column of .parquet (default: text)",
    )
    train.set_defaults(action=_train)

    encode = actions.add_parser("encode", help="text to token ids")
    _add_tokenizer(encode)
    encode.add_argument("text", nargs="?", metavar="TEXT", help="the text; standard input if not given")
    encode.add_argument("--json", action="store_true", help="print ids and tokens as JSON")
    encode.set_defaults(action=_encode)

    decode = actions.add_parser("decode", help="token ids to text")
    _add_tokenizer(decode)
    decode.add_argument("ids", nargs="*", metavar="ID", help="the ids; standard input if none is given")
    decode.set_defaults(action=_decode)

    inspect = actions.add_parser("inspect", help="what a tokenizer is, and how well it fits a text")
    _add_tokenizer(inspect)
    inspect.add_argument("files", nargs="*", metavar="FILES", help="text to measure bytes per token on")
    inspect.add_argument(
        "--text_field", default="text", metavar="NAME", help="field of .jsonl, column of .parquet"
    )
    inspect.add_argument("--json", action="store_true", help="print it as JSON")
    inspect.set_defaults(action=_inspect)
    return parser


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="PATH",
        help="a tokenizer.json, or a folder (a run) that holds one",
    )


def _train(options: argparse.Namespace) -> int:
    from insight.data.tokenizers import BPETokenizerConfig
    from insight.runtime.files import ensure_writable

    output = Path(options.output)
    output = output / "tokenizer.json" if output.is_dir() else output
    if output.exists():
        raise OutputError(f"--output={output} exists already", "choose another name, or remove it first")
    config = BPETokenizerConfig(options.vocabulary_size, options.min_frequency)
    ensure_writable(output.parent)
    tokenizer = config.build(_texts(options.files, options.text_field))
    tokenizer.save(output)
    say(f"{tokenizer.vocabulary_size} tokens, fingerprint {tokenizer.fingerprint()}")
    print(output)
    return 0


def _encode(options: argparse.Namespace) -> int:
    tokenizer = _load(options)
    ids = tokenizer.encode(read_standard_input() if options.text is None else options.text)
    if options.json:
        tokens = [tokenizer.token_bytes(index).decode("utf-8", errors="backslashreplace") for index in ids]
        print(json.dumps({"ids": ids, "tokens": tokens}))
    else:
        print(*ids)
    return 0


def _decode(options: argparse.Namespace) -> int:
    words = options.ids or read_standard_input().split()
    try:
        ids = [int(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not word.lstrip("-").isdecimal())
        raise TokenizerError(f"id {wrong!r} is not a whole number", "give ids as 12 345 6") from None
    print(_load(options).decode(ids, skip_special_tokens=False))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    tokenizer = _load(options)
    lengths = tokenizer.token_byte_lengths()
    longest = sorted(range(len(lengths)), key=lambda index: -int(lengths[index]))[:10]
    facts: dict[str, object] = {
        "kind": type(tokenizer).__name__,
        "vocabulary_size": tokenizer.vocabulary_size,
        "special_tokens": tokenizer.special_tokens,
        "fingerprint": tokenizer.fingerprint(),
        "longest_tokens": [
            tokenizer.token_bytes(i).decode("utf-8", errors="backslashreplace") for i in longest
        ],
    }
    if options.files:
        num_bytes = num_tokens = 0
        for text in _texts(options.files, options.text_field):
            num_bytes += len(text.encode("utf-8"))
            num_tokens += len(tokenizer.encode_batch([text]).ids)
        facts |= {"bytes": num_bytes, "tokens": num_tokens, "bytes_per_token": num_bytes / num_tokens}
    if options.json:
        print(json.dumps(facts))
    else:
        for key, value in facts.items():
            shown = f"{value:.3f}" if isinstance(value, float) else value
            print(f"{key.replace('_', ' '):16} {plain_line(str(shown))}")
    return 0


def _load(options: argparse.Namespace) -> BaseTokenizer:
    from insight.data.tokenizers import load_tokenizer

    return load_tokenizer(options.tokenizer)


def _texts(patterns: list[str], text_field: str) -> Iterator[str]:
    from insight.data.sources import expand_sources

    for source in expand_sources(patterns, "FILES"):
        yield from source.documents(text_field)
