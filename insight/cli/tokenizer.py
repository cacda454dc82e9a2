"""``insight tokenizer``: train a tokenizer, encode and decode with it, look inside, prune it; no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from insight.cli import tokenizer_encode, tokenizer_inspect, tokenizer_prune
from insight.cli.arguments import CommandParser, read_standard_input
from insight.cli.tokenizer_texts import add_labelled, add_text_field, add_tokenizer, labelled_texts, texts
from insight.runtime.errors import ConfigError, OutputError, TokenizerError
from insight.runtime.messages import say

if TYPE_CHECKING:
    from insight.data.tokenizers import BaseTokenizer, TokenizerConfig


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    exit_code: int = options.action(options)
    return exit_code


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight tokenizer", description=__doc__.split(": ")[1])
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")

    train = actions.add_parser("train", help="train a tokenizer on text")
    train.add_argument("files", nargs="*", metavar="FILES", help="files, folders, globs or corpus:NAME")
    add_labelled(train, "the text of one language: all make one vocabulary")
    train.add_argument(
        "--separate",
        action="store_true",
        help="a vocabulary for each --text instead, NAME.json in the folder --output",
    )
    train.add_argument(
        "--output", required=True, metavar="FILE", help="the tokenizer.json to write; or a folder"
    )
    train.add_argument(
        "--kind",
        choices=("bpe", "word"),
        default="bpe",
        help="byte-level BPE, or a token a word (default: bpe)",
    )
    train.add_argument(
        "--vocabulary_size",
        type=int,
        default=2048,
        metavar="N",
        help="number of tokens, for words the most (default: 2048)",
    )
    train.add_argument(
        "--min_frequency",
        type=int,
        default=2,
        metavar="N",
        help="a pair or word must occur this often (default: 2)",
    )
    train.add_argument(
        "--pre_tokenizer",
        metavar="NAME",
        help="bpe: gpt2, single_digits or gpt4 (default: gpt2)",
    )
    train.add_argument(
        "--normalization", metavar="NAME", help="none, nfc, nfkc or lowercase; words: none or lowercase"
    )
    train.add_argument(
        "--special_token",
        action="append",
        default=[],
        metavar="NAME",
        help="bpe: a further token that stands for no text, e.g. '<|user|>' (may be given again)",
    )
    add_text_field(train)
    train.set_defaults(action=_train)

    encode = actions.add_parser("encode", help="a text to token ids, or files to a token store")
    tokenizer_encode.add_arguments(encode)

    decode = actions.add_parser("decode", help="token ids to text")
    add_tokenizer(decode)
    decode.add_argument("ids", nargs="*", metavar="ID", help="the ids; standard input if none is given")
    decode.set_defaults(action=_decode)

    inspect = actions.add_parser("inspect", help="what a tokenizer is, and how well it fits a text")
    tokenizer_inspect.add_arguments(inspect)
    prune = actions.add_parser("prune", help="drop tokens that a text hardly needs, also from a checkpoint")
    tokenizer_prune.add_arguments(prune)
    return parser


def _train(options: argparse.Namespace) -> int:
    from insight.data.tokenizers.training import joint_vocabulary
    from insight.runtime.files import ensure_writable

    labelled = dict(labelled_texts(options.text, options.text_field))
    if not options.files and not labelled:
        raise ConfigError("no text to train on", "name files, or --text NAME=FILES")
    if options.separate:
        return _train_separately(options, labelled)
    output = Path(options.output)
    output = output / "tokenizer.json" if output.is_dir() else output
    _check_new(output)
    config = _config(options)
    ensure_writable(output.parent)
    read = {name: documents() for name, documents in labelled.items()}
    files = {"files": texts(options.files, options.text_field)} if options.files else {}
    tokenizer = joint_vocabulary(config, files | read)
    _save(tokenizer, output)
    return 0


def _train_separately(options: argparse.Namespace, labelled: dict[str, Callable[[], Iterable[str]]]) -> int:
    from insight.data.tokenizers.training import separate_vocabularies
    from insight.runtime.files import ensure_writable

    if options.files or len(labelled) < 2:
        raise ConfigError("--separate needs two --text or more, and no other files", "use --text NAME=FILES")
    folder = Path(options.output)
    outputs = {name: folder / f"{name}.json" for name in labelled}
    for name, output in outputs.items():
        if output.parent != folder:
            raise ConfigError(f"--text={name}=...: the name cannot be that of a file", "use e.g. de")
        _check_new(output)
    config = _config(options)
    ensure_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    read = {name: documents() for name, documents in labelled.items()}
    for name, tokenizer in separate_vocabularies(config, read).items():
        _save(tokenizer, outputs[name])
    return 0


def _check_new(output: Path) -> None:
    if output.exists():
        raise OutputError(f"--output={output} exists already", "choose another name, or remove it first")


def _save(tokenizer: BaseTokenizer, output: Path) -> None:
    tokenizer.save(output)
    say(f"{tokenizer.vocabulary_size} tokens, fingerprint {tokenizer.fingerprint()}")
    print(output)


def _config(options: argparse.Namespace) -> TokenizerConfig:
    from insight.data.tokenizers import BPETokenizerConfig, WordTokenizerConfig

    normalization = options.normalization or "none"
    if options.kind == "bpe":
        return BPETokenizerConfig(
            options.vocabulary_size,
            options.min_frequency,
            options.pre_tokenizer or "gpt2",
            normalization,
            tuple(options.special_token),
        )
    for name, value in (("pre_tokenizer", options.pre_tokenizer), ("special_token", options.special_token)):
        if value:
            raise ConfigError(f"--{name} has no meaning for --kind word", "leave it out")
    if normalization not in ("none", "lowercase"):
        raise ConfigError(f"--normalization={normalization!r} with --kind word", "use none or lowercase")
    return WordTokenizerConfig(
        options.vocabulary_size, options.min_frequency, lowercase=normalization == "lowercase"
    )


def _decode(options: argparse.Namespace) -> int:
    words = options.ids or read_standard_input().split()
    try:
        ids = [int(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not word.lstrip("-").isdecimal())
        raise TokenizerError(f"id {wrong!r} is not a whole number", "give ids as 12 345 6") from None
    print(_load(options).decode(ids, skip_special_tokens=False))
    return 0


def _load(options: argparse.Namespace) -> BaseTokenizer:
    from insight.data.tokenizers import load_tokenizer

    return load_tokenizer(options.tokenizer)
