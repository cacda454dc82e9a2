"""``insight tokenizer prune``: a smaller vocabulary for a text, and a checkpoint that goes with it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.cli.tokenizer_texts import add_text_field, add_tokenizer, named_texts
from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.files import ensure_writable

if TYPE_CHECKING:
    from insight.data.tokenizers import BaseTokenizer
    from insight.data.tokenizers.pruning import PrunedTokenizer, PruningSearch, PruningTrial

FORMAT_VERSION = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the action."""
    add_tokenizer(parser)
    parser.add_argument(
        "files", nargs="+", metavar="FILES", help="the text that counts: files, folders, globs or corpus:NAME"
    )
    add_text_field(parser)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--vocabulary_size", type=int, metavar="N", help="tokens to be left")
    goal.add_argument(
        "--max_loss",
        type=float,
        metavar="SHARE",
        help="as few as make the text at most this much longer, e.g. 0.01; 0 drops what never occurs",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="RUN|CKPT",
        help="a model of this tokenizer; a copy with the rows of the tokens that stay is written too",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="gets tokenizer.json, old_to_new.json, report.html, summary.json and model.ckpt; must not exist",
    )
    parser.add_argument("--json", action="store_true", help="print summary.json instead of a table")
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Prune, measure, write."""
    from insight.data.tokenizers import load_tokenizer
    from insight.data.tokenizers.pruning import PruningSearch
    from insight.runtime.output_folder import require_new
    from insight.runtime.run_folder import find_checkpoint

    output = Path(options.output)
    require_new(output)
    ensure_writable(output)
    if options.max_loss is not None and not options.max_loss >= 0:
        raise ConfigError(f"--max_loss={options.max_loss}: must not be negative", "use e.g. 0.01")
    checkpoint = find_checkpoint(options.checkpoint) if options.checkpoint else None
    if checkpoint is not None and checkpoint.is_dir():
        raise CheckpointError(
            f"--checkpoint={options.checkpoint!r} is a quantized model, whose rows cannot be sliced",
            "prune the checkpoint it was made from, then quantize that",
        )
    tokenizer = load_tokenizer(options.tokenizer)
    search = PruningSearch(tokenizer, named_texts(options.files, options.text_field))
    if options.max_loss is None:
        pruned = search.to_size(options.vocabulary_size)
    else:
        pruned = search.to_loss(options.max_loss)
    search.try_curve()
    summary = _summary(tokenizer, search, pruned, options)
    _write(output, summary, tokenizer, pruned, checkpoint)
    if options.json:
        print(json.dumps(summary))
    else:
        for size in summary["sizes"]:
            mark = "  <- written" if size["is_chosen"] else ""
            print(
                f"{size['vocabulary_size']:>9,} tokens: {size['bytes_per_token']:.3f} bytes per token, "
                f"text {size['loss']:+.2%}{mark}"
            )
        print(f"\n{output / 'report.html'}")
    return 0


def _summary(
    tokenizer: BaseTokenizer, search: PruningSearch, pruned: PrunedTokenizer, options: argparse.Namespace
) -> dict[str, Any]:
    from insight.runtime.version import __version__

    chosen = pruned.tokenizer.vocabulary_size
    trials = sorted(search.trials.values(), key=lambda trial: trial.vocabulary_size)
    return {
        "format_version": FORMAT_VERSION,
        "before": {"vocabulary_size": tokenizer.vocabulary_size, "fingerprint": tokenizer.fingerprint()},
        "after": {"vocabulary_size": chosen, "fingerprint": pruned.tokenizer.fingerprint()},
        "largest_free_size": search.largest_free_size,
        "smallest_size": search.smallest_size,
        "sizes": [_size(trial, trial.vocabulary_size == chosen) for trial in trials],
        "text": {"files": options.files, "bytes": search.before.total.num_bytes},
        "command": list(sys.argv),
        "insight_version": __version__,
    }


def _size(trial: PruningTrial, is_chosen: bool) -> dict[str, Any]:
    return {
        "vocabulary_size": trial.vocabulary_size,
        "tokens": trial.num_tokens,
        "bytes_per_token": trial.bytes_per_token,
        "tokens_per_byte": 1 / trial.bytes_per_token,
        "loss": trial.loss,
        "is_chosen": is_chosen,
    }


def _write(
    output: Path,
    summary: dict[str, Any],
    tokenizer: BaseTokenizer,
    pruned: PrunedTokenizer,
    checkpoint: Path | None,
) -> None:
    from insight.reporting.report import write_report
    from insight.reporting.sections.tokenizer import build_pruning
    from insight.runtime.json_files import write_object
    from insight.runtime.output_folder import new_folder
    from insight.runtime.run_folder import RunFolder

    before, after = tokenizer.vocabulary_size, pruned.tokenizer.vocabulary_size
    with new_folder(output) as temporary:
        pruned.tokenizer.save(temporary)
        table = [None if new < 0 else new for new in pruned.old_to_new.tolist()]
        (temporary / "old_to_new.json").write_text(json.dumps(table) + "\n", encoding="ascii")
        write_object(temporary / "summary.json", summary)
        write_report(
            RunFolder(temporary),
            (build_pruning,),
            title=f"{before:,} tokens pruned to {after:,}",
            kind="tokenizer",
        )
        if checkpoint is not None:
            from insight.checkpoints.pruned_vocabulary import write_pruned_checkpoint

            write_pruned_checkpoint(checkpoint, pruned, tokenizer.fingerprint(), temporary / "model.ckpt")
