"""The options that name a tokenizer and texts, as all actions of ``insight tokenizer`` take them."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from insight.runtime.errors import ConfigError

if TYPE_CHECKING:
    from insight.data.tokenizers.quality import NamedText


def add_tokenizer(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """``--tokenizer``."""
    parser.add_argument(
        "--tokenizer",
        required=required,
        metavar="PATH",
        help="a tokenizer.json, a folder (a run, a Hugging Face model) that holds one, or a GGUF file",
    )


def add_text_field(parser: argparse.ArgumentParser) -> None:
    """``--text_field``."""
    parser.add_argument(
        "--text_field",
        default="text",
        metavar="NAME",
        help="field of .jsonl, column of .tsv and .parquet (default: text)",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """``--text_field`` and ``--invalid_text``."""
    add_text_field(parser)
    parser.add_argument(
        "--invalid_text",
        default="error",
        metavar="WHAT",
        help="of bytes that are no text: error, replace or skip (default: error)",
    )


def add_labelled(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``--text``, which may be given again."""
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="NAME=FILES",
        help=f"{purpose}, such as de='german/*.txt'; may be given again",
    )


def texts(patterns: list[str], text_field: str) -> Iterator[str]:
    """The documents of all files, to train a tokenizer on: long ones come in parts.

    Raises:
        DataError: A file cannot be read.
    """
    from insight.data.sources.decoding import Reading
    from insight.data.sources.files import expand_sources
    from insight.data.sources.formats import training_texts

    for source in expand_sources(patterns, "FILES"):
        yield from training_texts(source.parts(Reading(text_field)))


def named_texts(patterns: list[str], text_field: str) -> list[NamedText]:
    """Each file with its documents.

    Raises:
        DataError: A file is missing, empty or of no supported format.
    """
    from insight.data.sources.files import expand_sources

    return [
        (source.name, functools.partial(source.documents, text_field))
        for source in expand_sources(patterns, "FILES")
    ]


def labelled_texts(values: list[str], text_field: str) -> list[NamedText]:
    """What ``--text NAME=FILES`` names: each name with the documents of all its files.

    Raises:
        ConfigError: There is no name.
        DataError: A file is missing, empty or of no supported format.
    """
    patterns: dict[str, list[str]] = {}
    for value in values:
        name, equals, pattern = value.partition("=")
        if not (equals and name.strip() and pattern):
            raise ConfigError(f"--text={value!r}: needs a name and files", "use e.g. --text de=german.txt")
        patterns.setdefault(name, []).append(pattern)
    return [
        (name, functools.partial(_documents, named_texts(files, text_field)))
        for name, files in patterns.items()
    ]


def _documents(named: list[NamedText]) -> Iterator[str]:
    for _, read in named:
        yield from read()
