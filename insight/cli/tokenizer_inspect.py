"""``insight tokenizer inspect``: what a tokenizer is, how well it fits texts, and how another one does."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.cli.tokenizer_texts import (
    add_labelled,
    add_text_field,
    add_tokenizer,
    labelled_texts,
    named_texts,
)
from insight.runtime.errors import ConfigError
from insight.runtime.files import ensure_writable
from insight.runtime.messages import plain_line

if TYPE_CHECKING:
    from insight.data.tokenizers import BaseTokenizer
    from insight.data.tokenizers.quality import TextQuality, TokenizerQuality

FORMAT_VERSION = 1
_NUM_EXAMPLES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the action."""
    add_tokenizer(parser)
    parser.add_argument(
        "files", nargs="*", metavar="FILES", help="text to measure it on, each file on its own"
    )
    add_labelled(parser, "files measured as one text, a language")
    add_text_field(parser)
    parser.add_argument("--compare", metavar="OTHER", help="another tokenizer, measured on the same text")
    parser.add_argument(
        "--rare_below",
        type=int,
        default=10,
        metavar="N",
        help="a token that occurs less often than this counts as hardly used (default: 10)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    parser.add_argument(
        "--output", metavar="FOLDER", help="where report.html and summary.json go; must not exist"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Measure, print, and write the report if one is asked for."""
    from insight.data.tokenizers import load_tokenizer
    from insight.runtime.output_folder import require_new

    if options.rare_below < 1:
        raise ConfigError(f"--rare_below={options.rare_below}: must be at least 1", "use e.g. 10")
    if (options.compare or options.output) and not (options.files or options.text):
        option = "--compare" if options.compare else "--output"
        raise ConfigError(f"{option} needs text to measure on", "name files, e.g. corpus:austen-emma")
    if options.output:
        require_new(Path(options.output))
        ensure_writable(Path(options.output))
    paths = [options.tokenizer, *([options.compare] if options.compare else [])]
    tokenizers = [load_tokenizer(path) for path in paths]
    summary = _summary(paths, tokenizers, options)
    if options.output:
        _write(Path(options.output), summary)
    if options.json:
        print(json.dumps(summary["tokenizers"][0] if len(tokenizers) == 1 else summary))
    else:
        _print(summary)
        if options.output:
            print(f"\n{Path(options.output) / 'report.html'}")
    return 0


def describe(tokenizer: BaseTokenizer) -> dict[str, Any]:
    """What a tokenizer is, in plain JSON values."""
    lengths = tokenizer.token_byte_lengths()
    longest = sorted(range(len(lengths)), key=lambda index: -int(lengths[index]))[:_NUM_EXAMPLES]
    return {
        "kind": type(tokenizer).__name__,
        "vocabulary_size": tokenizer.vocabulary_size,
        "special_tokens": tokenizer.special_tokens,
        "is_lossless": tokenizer.is_lossless,
        "encoder": tokenizer.encoder,
        "fingerprint": tokenizer.fingerprint(),
        "longest_tokens": [_shown(tokenizer, index) for index in longest],
    }


def describe_quality(quality: TokenizerQuality, rare_below: int) -> dict[str, Any]:
    """What it makes of the texts, in plain JSON values."""
    num_ordinary = max(1, len(quality.ordinary_ids))
    used: dict[str, Any] = {}
    for name, ids in (("unused_tokens", quality.unused_ids()), ("rare_tokens", quality.rare_ids(rare_below))):
        # The youngest are the ones that training added last; examples of bytes would say little.
        examples = [_shown(quality.tokenizer, index) for index in ids[::-1][:_NUM_EXAMPLES].tolist()]
        used[name] = {"count": len(ids), "share": len(ids) / num_ordinary, "examples": examples}
    files = [{"name": text.name, **_measures(text)} for text in quality.texts]
    return {**_measures(quality.total), **used, "rare_below": rare_below, "files": files}


def _summary(
    paths: list[str], tokenizers: list[BaseTokenizer], options: argparse.Namespace
) -> dict[str, Any]:
    from insight.runtime.version import __version__

    described = [{"name": path, **describe(each)} for path, each in zip(paths, tokenizers, strict=True)]
    summary: dict[str, Any] = {"format_version": FORMAT_VERSION, "tokenizers": described}
    if options.files or options.text:
        from insight.data.tokenizers.quality import compare_tokenizers, measure_tokenizer

        texts = named_texts(options.files, options.text_field) if options.files else []
        texts += labelled_texts(options.text, options.text_field)
        measured = [measure_tokenizer(each, texts) for each in tokenizers]
        for facts, quality in zip(described, measured, strict=True):
            facts |= describe_quality(quality, options.rare_below)
        if len(measured) == 2:
            difference = compare_tokenizers(measured[0], measured[1], options.seed)
            summary["comparison"] = {
                "token_share": measured[1].total.num_tokens / measured[0].total.num_tokens,
                "tokens_per_byte_difference": dataclasses.asdict(difference),
            }
    return summary | {"command": list(sys.argv), "insight_version": __version__}


def _measures(text: TextQuality) -> dict[str, Any]:
    return {
        "documents": text.num_documents,
        "bytes": text.num_bytes,
        "words": text.num_words,
        "tokens": text.num_tokens,
        "bytes_per_token": text.bytes_per_token,
        "tokens_per_word": text.tokens_per_word,
        "coverage": text.coverage,
        "fragment_share": text.fragment_share,
        "round_trip": {"checked": text.num_checked, "lost": text.num_lost, "first_loss": text.first_loss},
    }


def _write(folder: Path, summary: dict[str, Any]) -> None:
    from insight.reporting.report import write_report
    from insight.reporting.sections.tokenizer import build_tokenizer_quality, build_tokenizer_tokens
    from insight.runtime.json_files import write_object
    from insight.runtime.output_folder import new_folder
    from insight.runtime.run_folder import RunFolder

    names = [str(tokenizer["name"]) for tokenizer in summary["tokenizers"]]
    sections = (build_tokenizer_quality, build_tokenizer_tokens)
    with new_folder(folder) as temporary:
        write_object(temporary / "summary.json", summary)
        write_report(RunFolder(temporary), sections, title=" against ".join(names), kind="tokenizer")


def _print(summary: dict[str, Any]) -> None:
    for number, facts in enumerate(summary["tokenizers"]):
        if number:
            print()
        for key, value in facts.items():
            if key != "files":
                _print_line(key, value)
        for file in facts.get("files", []) if len(facts.get("files", [])) > 1 else []:
            figures = f"{file['bytes_per_token']:.3f} bytes per token, {file['tokens_per_word']:.3f} per word"
            print(f"  {plain_line(file['name'])}: {figures}")
    if comparison := summary.get("comparison"):
        difference = comparison["tokens_per_byte_difference"]
        value, low, high = (1000 * difference[key] for key in ("value", "low", "high"))
        print(f"\nthe second needs {comparison['token_share'] - 1:+.2%} tokens,")
        print(f"{value:+.2f} per 1,000 bytes (95%: {low:+.2f} to {high:+.2f})")


def _print_line(key: str, value: Any) -> None:
    if isinstance(value, float):
        shown = f"{value:.3f}"
    elif isinstance(value, dict) and "examples" in value:
        shown = f"{value['count']:,} ({value['share']:.1%}), e.g. {value['examples']}"
    elif isinstance(value, dict) and "first_loss" in value:
        lost = f"{value['lost']} of {value['checked']} texts changed"
        shown = f"{lost}; {value['first_loss']}" if value["lost"] else lost
    else:
        shown = str(value)
    print(f"{key.replace('_', ' '):16} {plain_line(shown)}")


def _shown(tokenizer: BaseTokenizer, index: int) -> str:
    return tokenizer.token_bytes(index).decode("utf-8", errors="backslashreplace")
