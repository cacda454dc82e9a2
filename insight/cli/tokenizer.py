"""``insight tokenizer``: train a tokenizer, encode and decode with it, inspect and prune it; no torch."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from insight.api.tokenize import (
    Reading,
    decode_ids,
    encode_files,
    encode_text,
    encoding_executor,
    inspect_tokenizer,
    prune_tokenizer,
    tokenizer_config,
    train_tokenizer,
)
from insight.cli.arguments import CommandParser, add_options, read_standard_input, text_argument
from insight.runtime.errors import ConfigError, TokenizerError
from insight.runtime.json_files import print_json
from insight.runtime.messages import aligned, plain_line, say

_FILES = "files, folders, globs or corpus:NAME"
_TEXT = "the text of one language, such as de='german/*.txt'; may be given again"
# Settings for ``add_argument``.
_LANGUAGES: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME=FILES"}
_NUMBER: dict[str, Any] = {"type": int, "metavar": "N"}
_SHARE: dict[str, Any] = {"type": float, "metavar": "SHARE"}
_TOKENIZER: dict[str, Any] = {"required": True, "metavar": "PATH"}
_FOLDER: dict[str, Any] = {"metavar": "FOLDER"}
_FLAG: dict[str, Any] = {"action": "store_true"}
_READING: dict[str, dict[str, Any]] = {
    "text_field": {"default": "text", "metavar": "NAME"},
    "invalid_text": {"default": "error", "metavar": "WHAT"},
}
# Options of `encode` that apply to files only.
_OF_FILES = ("executor", "scheduler", "num_workers", "cache_dir", "validation_fraction", "seed")


def run(name: str, arguments: list[str]) -> int:
    """Parse the arguments and run one action."""
    options = _parser().parse_args(arguments)
    options.action(options)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight tokenizer", description=__doc__.split(": ")[1])
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")

    train = actions.add_parser("train", help="train a tokenizer on text")
    train.set_defaults(action=_train)
    train.add_argument("files", metavar="FILES", help=_FILES, nargs="*")
    train.add_argument("--text", help=f"{_TEXT}; all languages make one vocabulary", **_LANGUAGES)
    own: dict[str, dict[str, Any]] = {
        "output": {"required": True, "metavar": "FILE"},
        "separate": _FLAG,
    }
    add_options(train, train_tokenizer, own)
    add_options(train, Reading, _READING)
    own = {
        "kind": {"choices": ("bpe", "word"), "default": "bpe"},
        "vocabulary_size": _NUMBER | {"default": 2048},
        "min_frequency": _NUMBER | {"default": 2},
        "pre_tokenizer": {"metavar": "NAME"},
        "normalization": {"metavar": "NAME"},
    }
    add_options(train, tokenizer_config, own)
    train.add_argument(
        "--special_token",
        action="append",
        default=[],
        metavar="NAME",
        help="bpe: a further token that stands for no text, e.g. '<|user|>'; may be given again",
    )

    encode = actions.add_parser("encode", help="a text to token ids, or files to a token store")
    encode.set_defaults(action=_encode)
    encode.add_argument(
        "text",
        nargs="?",
        type=text_argument,
        metavar="TEXT",
        help="the text; standard input if not given",
    )
    encode.add_argument(
        "--files", nargs="+", metavar="FILES", help=f"encode {_FILES} instead, into the cache of runs"
    )
    own = {
        "tokenizer": _TOKENIZER,
        "validation_fraction": _SHARE,
        "seed": _NUMBER,
        "cache_dir": _FOLDER,
    }
    add_options(encode, encode_files, own)
    add_options(encode, Reading, _READING)
    own = {
        "executor": {"choices": ("local", "in_process", "dask")},
        "scheduler": {"metavar": "ADDRESS"},
        "num_workers": _NUMBER,
    }
    add_options(encode, encoding_executor, own)
    encode.add_argument("--json", help="print the result as JSON", **_FLAG)

    decode = actions.add_parser("decode", help="token ids to text")
    decode.set_defaults(action=_decode)
    add_options(decode, encode_files, {"tokenizer": _TOKENIZER})
    decode.add_argument("ids", metavar="ID", help="the ids; standard input if none is given", nargs="*")

    inspect = actions.add_parser("inspect", help="what a tokenizer is, and how well it fits a text")
    inspect.set_defaults(action=_inspect)
    inspect.add_argument("files", metavar="FILES", help=f"{_FILES}, each file measured by itself", nargs="*")
    inspect.add_argument("--text", help=f"{_TEXT}; all files of a name are measured as one", **_LANGUAGES)
    own = {
        "tokenizer": _TOKENIZER,
        "compare": {"metavar": "OTHER"},
        "rare_below": _NUMBER | {"default": 10},
        "seed": _NUMBER | {"default": 0},
        "output": _FOLDER,
    }
    add_options(inspect, inspect_tokenizer, own)
    add_options(inspect, Reading, _READING)
    inspect.add_argument("--json", help="print the result as JSON", **_FLAG)

    prune = actions.add_parser("prune", help="drop tokens that a text hardly needs, also from a checkpoint")
    prune.set_defaults(action=_prune)
    prune.add_argument("files", nargs="+", metavar="FILES", help=f"the text that counts: {_FILES}")
    goal = prune.add_mutually_exclusive_group(required=True)
    add_options(goal, prune_tokenizer, {"vocabulary_size": _NUMBER, "max_loss": _SHARE})
    own = {
        "tokenizer": _TOKENIZER,
        "checkpoint": {"metavar": "RUN|CKPT"},
        "output": _FOLDER | {"required": True},
    }
    add_options(prune, prune_tokenizer, own)
    add_options(prune, Reading, _READING)
    prune.add_argument("--json", help="print the result as JSON", **_FLAG)
    return parser


def _languages(options: argparse.Namespace) -> dict[str, list[str]]:
    """The files of each name that ``--text NAME=FILES`` gave."""
    patterns: dict[str, list[str]] = {}
    for value in options.text:
        name, equals, pattern = value.partition("=")
        if not (equals and name.strip() and pattern):
            raise ConfigError(
                "it needs a name and files", "use e.g. --text de=german.txt", option="text", value=value
            )
        patterns.setdefault(name, []).append(pattern)
    return patterns


def _train(options: argparse.Namespace) -> None:
    config = tokenizer_config(
        options.kind,
        options.vocabulary_size,
        options.min_frequency,
        options.pre_tokenizer,
        options.normalization,
        options.special_token,
    )
    saved = train_tokenizer(
        config,
        options.output,
        options.files,
        _languages(options),
        separate=options.separate,
        reading=Reading(options.text_field, options.invalid_text),
    )
    for one in saved:
        say(f"{one.tokenizer.vocabulary_size} tokens, fingerprint {one.tokenizer.fingerprint()}")
        print(one.path)


def _encode(options: argparse.Namespace) -> None:
    if not options.files:
        return _encode_text(options)
    if options.text is not None:
        raise ConfigError(f"{options.text!r} beside --files", "give a text or files")
    stores = encode_files(
        options.tokenizer,
        options.files,
        reading=Reading(options.text_field, options.invalid_text),
        validation_fraction=options.validation_fraction or 0.0,
        seed=options.seed or 0,
        executor=encoding_executor(options.executor, options.scheduler, options.num_workers),
        cache_dir=options.cache_dir,
    )
    if options.json:
        print_json({"stores": [dataclasses.asdict(store) for store in stores]})
    else:
        for store in stores:
            print(f"{store.path}  {store.documents:,} documents, {store.tokens:,} tokens")
    return None


def _encode_text(options: argparse.Namespace) -> None:
    for name in _OF_FILES:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} has no meaning for a text", "name --files, or leave it out")
    ids, tokens = encode_text(
        options.tokenizer, read_standard_input() if options.text is None else options.text
    )
    if options.json:
        print_json({"ids": ids, "tokens": tokens})
    else:
        print(*ids)


def _decode(options: argparse.Namespace) -> None:
    ids = []
    for word in options.ids or read_standard_input().split():
        try:
            ids.append(int(word))
        except ValueError:
            raise TokenizerError(f"id {word!r} is not a whole number", "give ids as 12 345 6") from None
    print(decode_ids(options.tokenizer, ids))


def _inspect(options: argparse.Namespace) -> None:
    summary = inspect_tokenizer(
        options.tokenizer,
        options.files,
        _languages(options),
        compare=options.compare,
        rare_below=options.rare_below,
        seed=options.seed,
        output=options.output,
        reading=Reading(options.text_field, options.invalid_text),
    )
    if options.json:
        tokenizers = summary["tokenizers"]
        print_json(tokenizers[0] if len(tokenizers) == 1 else summary)
        return
    for number, facts in enumerate(summary["tokenizers"]):
        if number:
            print()
        rows = [(key.replace("_", " "), _shown(value)) for key, value in facts.items() if key != "files"]
        print(aligned(rows, words=(0, 1)))
        for file in facts.get("files", []) if len(facts.get("files", [])) > 1 else []:
            figures = f"{file['bytes_per_token']:.3f} bytes per token, {file['tokens_per_word']:.3f} per word"
            print(f"  {plain_line(file['name'])}: {figures}")
    if comparison := summary.get("comparison"):
        difference = comparison["tokens_per_byte_difference"]
        value, low, high = (1000 * difference[key] for key in ("value", "low", "high"))
        print(f"\nthe second needs {comparison['token_share'] - 1:+.2%} tokens,")
        print(f"{value:+.2f} per 1,000 bytes (95%: {low:+.2f} to {high:+.2f})")
    if options.output:
        print(f"\n{Path(options.output) / 'report.html'}")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict) and "examples" in value:
        return plain_line(f"{value['count']:,} ({value['share']:.1%}), e.g. {value['examples']}")
    if isinstance(value, dict) and "first_loss" in value:
        lost = f"{value['lost']} of {value['checked']} texts changed"
        return plain_line(f"{lost}; {value['first_loss']}" if value["lost"] else lost)
    return plain_line(str(value))


def _prune(options: argparse.Namespace) -> None:
    summary = prune_tokenizer(
        options.tokenizer,
        options.files,
        options.output,
        vocabulary_size=options.vocabulary_size,
        max_loss=options.max_loss,
        checkpoint=options.checkpoint,
        reading=Reading(options.text_field, options.invalid_text),
    )
    if options.json:
        print_json(summary)
        return
    rows = [("tokens", "bytes per token", "text", "")]
    for size in summary["sizes"]:
        mark = "<- written" if size["is_chosen"] else ""
        rows.append(
            (
                f"{size['vocabulary_size']:,}",
                f"{size['bytes_per_token']:.3f}",
                f"{size['loss']:+.2%}",
                mark,
            )
        )
    print(aligned(rows, words=(3,)))
    print(f"\n{Path(options.output) / 'report.html'}")
