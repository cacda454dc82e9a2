"""The options that name a tokenizer and texts, as all actions of ``insight tokenizer`` take them."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from insight.data.tokenizer_quality import NamedText


def add_tokenizer(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """``--tokenizer``."""
    parser.add_argument(
        "--tokenizer",
        required=required,
        metavar="PATH",
        help="a tokenizer.json, or a folder (a run, a Hugging Face model) that holds one",
    )


def add_text_field(parser: argparse.ArgumentParser) -> None:
    """``--text_field``."""
    parser.add_argument(
        "--text_field",
        default="text",
        metavar="NAME",
        help="field of .jsonl, column of .parquet (default: text)",
    )


def texts(patterns: list[str], text_field: str) -> Iterator[str]:
    """The documents of all files.

    Raises:
        DataError: A file cannot be read.
    """
    for _, read in named_texts(patterns, text_field):
        yield from read()


def named_texts(patterns: list[str], text_field: str) -> list[NamedText]:
    """Each file with its documents.

    Raises:
        DataError: A file is missing, empty or of no supported format.
    """
    from insight.data.sources import expand_sources

    return [
        (source.name, functools.partial(source.documents, text_field))
        for source in expand_sources(patterns, "FILES")
    ]
