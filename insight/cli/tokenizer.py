"""``insight tokenizer``: train a tokenizer, encode, decode, inspect, prune, clean parallel text; no torch."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from insight.api.clean import clean_pairs, pair_filters
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
from insight.cli.arguments import (
    CommandParser,
    add_action,
    add_parameters,
    chosen,
    read_standard_input,
    text_argument,
)
from insight.runtime.errors import ConfigError, TokenizerError
from insight.runtime.json_files import print_json
from insight.runtime.messages import aligned, plain_line, say

# Options of `encode` that apply to files only.
_OF_FILES = ("executor", "scheduler", "num_workers", "cache_dir", "validation_fraction", "seed")


def run(name: str, arguments: list[str]) -> int:
    """Parse the arguments and run one action."""
    options = _parser().parse_args(arguments)
    options.run(options)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight tokenizer", description=__doc__.split(": ")[1])
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")
    texts: Any = {"positional": ("files",), "spelled": {"languages": "text"}}

    train = add_action(actions, "train", "train a tokenizer on text", _train, json=False)
    add_parameters(train, train_tokenizer, ("files", "languages", "output", "separate"), **texts)
    add_parameters(train, tokenizer_config, spelled={"special_tokens": "special_token"})

    encode = add_action(actions, "encode", "a text to token ids, or files to a token store", _encode)
    about = "the text; standard input if not given"
    encode.add_argument("text", nargs="?", type=text_argument, metavar="TEXT", help=about)
    about = "encode files, folders, globs or corpus:NAME instead, into the cache of runs"
    encode.add_argument("--files", nargs="+", metavar="FILES", help=about)
    add_parameters(encode, encode_files, ("tokenizer", "validation_fraction", "seed", "cache_dir"))
    add_parameters(encode, encoding_executor)

    decode = add_action(actions, "decode", "token ids to text", _decode, json=False)
    add_parameters(decode, decode_ids, ("tokenizer",))
    about = "the ids; standard input if none is given"
    decode.add_argument("ids", nargs="*", metavar="ID", help=about)

    inspect = add_action(actions, "inspect", "what a tokenizer is, and how well it fits a text", _inspect)
    names = ("files", "languages", "tokenizer", "compare", "rare_below", "seed", "output")
    add_parameters(inspect, inspect_tokenizer, names, **texts)

    summary = "drop tokens that a text hardly needs, also from a checkpoint"
    prune = add_action(actions, "prune", summary, _prune)
    add_parameters(prune, prune_tokenizer, ("files", "tokenizer", "checkpoint", "output"), ("files",))
    goal = prune.add_mutually_exclusive_group(required=True)
    add_parameters(goal, prune_tokenizer, ("vocabulary_size", "max_loss"))

    clean = add_action(actions, "clean", "leave out pairs of parallel text that teach nothing", _clean)
    names = ("files", "source", "target", "source_field", "target_field", "output", "invalid_text")
    add_parameters(clean, clean_pairs, names, ("files",))
    add_parameters(clean, pair_filters)

    for action in (train, encode, inspect, prune):
        add_parameters(action, Reading)
    return parser


def _arguments(options: argparse.Namespace, target: Any) -> dict[str, Any]:
    """The arguments of a function that reads files."""
    found = {**chosen(options, target), "reading": Reading(**chosen(options, Reading))}
    if "languages" in found:
        patterns: dict[str, list[str]] = {}
        for value in found["languages"]:
            name, equals, pattern = value.partition("=")
            if not (equals and name.strip() and pattern):
                remedy = "use e.g. --text de=german.txt"
                raise ConfigError("it needs a name and files", remedy, option="text", value=value)
            patterns.setdefault(name, []).append(pattern)
        found["languages"] = patterns
    return found


def _train(options: argparse.Namespace) -> None:
    config = tokenizer_config(**chosen(options, tokenizer_config))
    for saved in train_tokenizer(config, **_arguments(options, train_tokenizer)):
        say(f"{saved.tokenizer.vocabulary_size} tokens, fingerprint {saved.tokenizer.fingerprint()}")
        print(saved.path)


def _encode(options: argparse.Namespace) -> None:
    if options.files:
        _encode_files(options)
        return
    for name in _OF_FILES:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} has no meaning for a text", "name --files, or leave it out")
    text = read_standard_input() if options.text is None else options.text
    ids, tokens = encode_text(options.tokenizer, text)
    if options.json:
        print_json({"ids": ids, "tokens": tokens})
    else:
        print(*ids)


def _encode_files(options: argparse.Namespace) -> None:
    if options.text is not None:
        raise ConfigError(f"{options.text!r} beside --files", "give a text or files")
    options.executor = encoding_executor(**chosen(options, encoding_executor))
    stores = encode_files(**_arguments(options, encode_files))
    if options.json:
        print_json({"stores": [dataclasses.asdict(store) for store in stores]})
        return
    for store in stores:
        print(f"{store.path}  {store.documents:,} documents, {store.tokens:,} tokens")


def _decode(options: argparse.Namespace) -> None:
    ids = []
    for word in options.ids or read_standard_input().split():
        try:
            ids.append(int(word))
        except ValueError:
            raise TokenizerError(f"id {word!r} is not a whole number", "give ids as 12 345 6") from None
    print(decode_ids(options.tokenizer, ids))


def _inspect(options: argparse.Namespace) -> None:
    summary = inspect_tokenizer(**_arguments(options, inspect_tokenizer))
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
    summary = prune_tokenizer(**_arguments(options, prune_tokenizer))
    if options.json:
        print_json(summary)
        return
    rows = [("tokens", "bytes per token", "text", "")]
    for size in summary["sizes"]:
        mark = "<- written" if size["is_chosen"] else ""
        figures = (f"{size['vocabulary_size']:,}", f"{size['bytes_per_token']:.3f}", f"{size['loss']:+.2%}")
        rows.append((*figures, mark))
    print(aligned(rows, words=(3,)))
    print(f"\n{Path(options.output) / 'report.html'}")


def _clean(options: argparse.Namespace) -> None:
    filters = pair_filters(**chosen(options, pair_filters))
    cleaned = clean_pairs(**chosen(options, clean_pairs), filters=filters)
    if options.json:
        print_json(dataclasses.asdict(cleaned))
        return
    rows = [("pairs read", f"{cleaned.num_read:,}")]
    rows += [(f"  {reason}", f"-{count:,}") for reason, count in cleaned.dropped.items()]
    rows += [("pairs written", f"{cleaned.num_kept:,}")]
    print(aligned(rows))
    if cleaned.num_changed:
        print(f"{cleaned.num_changed:,} sentences had tabs or line breaks, which became spaces")
    print("\n" + "\n".join(cleaned.files))
