"""Clean parallel text: leave out pairs of sentences that teach nothing, and write the others; no torch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from insight.data.cleaning import FilterCounts, PairFilters, filter_pairs
from insight.data.encoding.tasks import EncodingProgress
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.parallel import SIDES, Pair, ParallelFiles, ParallelSource, expand_parallel
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.files import atomic_file, ensure_writable, require_new
from insight.runtime.messages import say

_ENDS_LINE, _ENDS_CELL = re.compile(r"[\r\n]+"), re.compile(r"[\t\r\n]+")


@dataclass(frozen=True)
class CleanedPairs:
    """The result of cleaning parallel text.

    Attributes:
        files: The files that were written.
        num_read: Pairs that were read.
        num_kept: Pairs that were written.
        dropped: Pairs that each filter left out, by its reason; a pair counts for the first reason only.
        num_changed: Sentences in which tabs or line breaks became spaces, since the output cannot hold them.
    """

    files: list[str]
    num_read: int
    num_kept: int
    dropped: dict[str, int]
    num_changed: int


def pair_filters(
    max_words: int = 250,
    max_length_ratio: float = 3.0,
    keep_identical: bool = False,
    keep_duplicates: bool = False,
    source_script: str | None = None,
    target_script: str | None = None,
) -> PairFilters:
    """The filters of cleaning. A pair with an empty side is always left out.

    Args:
        max_words: Most words of either side; 0 for no limit.
        max_length_ratio: Most times that the longer side may have the characters of the shorter one, where
            the longer one has 20 or more; 0 for no limit.
        keep_identical: Keep pairs whose sides are equal.
        keep_duplicates: Keep pairs that occurred before.
        source_script: Script that at least half of the letters of the source have, such as LATIN, CYRILLIC or
            CJK+HIRAGANA+KATAKANA.
        target_script: Script that at least half of the letters of the target have.

    Raises:
        ConfigError: A value cannot work.
    """
    return PairFilters(
        None if max_words == 0 else max_words,
        None if max_length_ratio == 0 else max_length_ratio,
        not keep_identical,
        not keep_duplicates,
        source_script,
        target_script,
    )


def clean_pairs(
    output: Sequence[str],
    files: Sequence[str] = (),
    source: Sequence[str] = (),
    target: Sequence[str] = (),
    *,
    source_field: str = "source",
    target_field: str = "target",
    invalid_text: str = "error",
    filters: PairFilters = pair_filters(),
) -> CleanedPairs:
    """Write the pairs of parallel text that pass the filters, in their order.

    Args:
        output: New file to write: one .tsv with both sides, or given twice, the source and the target with a
            sentence in each line. Nothing is written before all text was read.
        files: Files that hold both sides: .tsv, .jsonl, .parquet or .tmx, a glob, or corpus:NAME.
        source: File with the source sentences, one in each line, instead of FILES; may be given again.
        target: File with the target sentences, line by line beside --source; may be given again.
        source_field: Column, field or language of the source sentences in FILES.
        target_field: Column, field or language of the target sentences in FILES.
        invalid_text: How bytes that are not UTF-8 are handled: error, replace or skip.
        filters: The pairs that are kept.

    Raises:
        InsightError: The options contradict each other, a file cannot be read, aligned files differ in
            length, no pair is left, or the output exists or cannot be written.
    """
    Reading(invalid_text=invalid_text)  # Checks the value.
    paths = _output_paths(output)
    named = _named(files, source, target)
    sources = expand_parallel(named, source_field, target_field, "files")
    counts, repairs = FilterCounts(), TextRepairs()
    num_changed = 0
    is_table = len(paths) == 1
    unwritable = _ENDS_CELL if is_table else _ENDS_LINE
    # Every file takes its name when the block ends without an error.
    with contextlib.ExitStack() as stack:
        written = [stack.enter_context(atomic_file(path)) for path in paths]
        if is_table:
            header = (source_field, target_field) if not source_field.isdecimal() else SIDES
            written[0].write("\t".join(header).encode("utf-8") + b"\n")
        pairs = (pair for each in sources for pair in _read(each, invalid_text, repairs))
        for pair in filter_pairs(pairs, filters, counts):
            sides = [unwritable.sub(" ", side) for side in pair]
            num_changed += sum(before != after for before, after in zip(pair, sides, strict=True))
            lines = ["\t".join(sides)] if is_table else sides
            for file, line in zip(written, lines, strict=True):
                file.write(line.encode("utf-8") + b"\n")
        if not counts.num_kept:
            raise DataError(counts.describe(), "nothing is written: give other text, or loosen the filters")
    if repaired := repairs.describe(invalid_text):
        say(repaired)
    names = [str(path) for path in paths]
    return CleanedPairs(names, counts.num_read, counts.num_kept, dict(counts.dropped), num_changed)


def _read(source: ParallelSource, invalid_text: str, repairs: TextRepairs) -> Iterator[Pair]:
    """The pairs of a source; a line says how far a long one is."""
    progress = EncodingProgress(source.name, work="cleaning")
    for pair in source.pairs(invalid_text, repairs):
        yield pair
        progress.advance(len(pair[0]) + len(pair[1]))


def _named(files: Sequence[str], source: Sequence[str], target: Sequence[str]) -> ParallelFiles:
    """The text to read as ``train_files`` names it."""
    if files and (source or target):
        raise ConfigError("FILES hold both sides, and --source and --target one each", "give one of the two")
    if files:
        return files
    if not (source and target):
        missing = "--target" if source else "--source" if target else "FILES"
        raise ConfigError(f"{missing} is not given", "name FILES with both sides, or --source and --target")
    return {"source": source, "target": target}


def _output_paths(output: Sequence[str]) -> list[Path]:
    """The checked files to write, one table or two aligned files."""
    paths = [Path(name).expanduser() for name in ([output] if isinstance(output, str) else output)]
    shown = ", ".join(map(str, paths))
    if len(paths) not in (1, 2) or len({path.absolute() for path in paths}) < len(paths):
        problem = "is neither one file nor two different ones"
        raise ConfigError(problem, "give one .tsv, or a file for each side", option="output", value=shown)
    if len(paths) == 1 and paths[0].suffix.lower() != ".tsv":
        remedy = f"use {paths[0].with_suffix('.tsv')}, or give --output twice for a file of each side"
        raise ConfigError("one file for both sides is a .tsv", remedy, option="output", value=shown)
    for path in paths:
        require_new(path, "output")
        ensure_writable(path.absolute().parent)
    return paths
