"""The lines of the program about itself on stderr, and the noise of libraries that is kept off them."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Collection, Sequence

from insight.runtime.processes import is_first_process

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def say(text: str) -> None:
    """Print one plain line on stderr: something the program decided or did.

    Only the first process of a distributed run speaks. Control characters (a file name may hold an escape
    sequence) are replaced, so a line is always one line and never drives the terminal.
    """
    if is_first_process():
        print(f"insight: {plain_line(text)}", file=sys.stderr, flush=True)


def write_what_the_console_can() -> None:
    """Let a console get a ``?`` for what it cannot show, in place of an error that ends the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def plain_line(text: str) -> str:
    """``text`` with every run of control and direction characters replaced by one space."""
    return _CONTROL.sub(" ", text).strip()


def silence_libraries() -> None:
    """Keep known noise of the libraries off the terminal; everything else they say still comes through.

    Call it before lightning and jsonargparse are imported; calling it again changes nothing. The lists
    below say for each message why it is noise here. Messages are matched by their words, never by a whole
    category or logger, so that what a later version has to say is heard.
    """
    # jsonargparse announces changes of its own interface to whoever runs the program, who cannot act on
    # them. It reads this variable at import; a developer who wants to see them sets it to "all".
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for name in (*_LIGHTNING_LOGGERS, *_PROCESS_LOGGERS, *_TORCHAO_LOGGERS):
        logging.getLogger(name).addFilter(_is_worth_saying)
    for category, message in _NOISY_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)


# Lightning says "information" through one of these two, depending on which was imported last.
_LIGHTNING_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")

# Says at each process that it joins, on a line of its own.
_PROCESS_LOGGERS = ("lightning.fabric.utilities.distributed",)

_TORCHAO_LOGGERS = ("torchao", "torch.utils._pytree")

_NOISY_INFORMATION = re.compile(
    "|".join(
        (
            # Advertises a product (litlogger, Lightning's cloud) at every start.
            r"litlogger|litmodels|💡 Tip",
            # The machine is described by one line of ours, with measured rates.
            r"^(GPU|TPU|HPU|IPU) available: ",
            # The precision is part of that line.
            r"^Using (bfloat16|16bit) Automatic Mixed Precision",
            # "max_steps=150 reached": our last line says why training ended, in words.
            r"^`Trainer\.fit` stopped: `max_",
            # --resume names the checkpoint, and what is restored from it, itself.
            r"^(Restoring states|Restored all states|Loaded model weights) from ",
            # `insight check` says itself that it took one step and kept nothing.
            r"^Running in `fast_dev_run` mode",
            # How many processes train where is part of the line about the run folder.
            r"^Initializing distributed: |All distributed processes registered",
            # A Ctrl-C is answered by a line that says how to go on.
            r"Detected KeyboardInterrupt",
            # torchao's kernels for CUDA, where there is none; what runs here is tried before it is used.
            r"^Failed to load .*_C\S*\.so",
            # torchao and torch among themselves.
            r"is an Enum subclass and is now natively supported",
        )
    )
)

_NOISY_WARNINGS: tuple[tuple[type[Warning], str], ...] = (
    # Asks for more loader workers: batches are cut from a memory-mapped file in microseconds, and a pool
    # of workers beside the training threads is what slows small machines down.
    (UserWarning, r".*does not have many workers which may be a bottleneck"),
    # Short runs (the demo, tests) have fewer batches than steps between log lines, on purpose.
    (UserWarning, r".*number of training batches \(\d+\) is smaller than the logging interval"),
    # The folder is made together with the run, and a resumed run goes on in it.
    (UserWarning, r".*(Checkpoint directory|Experiment logs directory) .* exists and is not empty"),
    # The loader holds no position because the data module does: it restarts in the middle of an epoch, and
    # refuses a position that belongs to other data.
    (UserWarning, r".*resuming from a checkpoint that ended before the epoch ended"),
    # Metrics are added up over all processes before they are logged.
    (UserWarning, r".*It is recommended to use `self\.log\(.*sync_dist=True\)`"),
    # Measuring a checkpoint needs none of the callbacks that trained it.
    (UserWarning, r".*callbacks used to create the checkpoint need to be provided"),
    # Would take bf16-mixed in place of 16-mixed on a CPU; `insight check` and `fit` refuse that instead.
    (UserWarning, r".*AMP with fp16 is not supported on CPU"),
    # The model summary's guess of megabytes; the report shows parameters.
    (UserWarning, r".*Precision .* is not supported by the model summary"),
    # Without text to validate on (validation_fraction: 0) there is no validation loader, as was asked for.
    (UserWarning, r".*Total length of `.*` across ranks is zero"),
    # A cluster's login node has srun although nobody asked for it.
    (UserWarning, r".*`srun` command is available on your system but is not used"),
    # Lightning and torch among themselves; nothing that a user's file could change.
    (FutureWarning, r".*isinstance\(treespec, LeafSpec\)` is deprecated"),
    (DeprecationWarning, r".*isinstance\(treespec, LeafSpec\)` is deprecated"),
    (FutureWarning, r".*pynvml package is deprecated"),
    # torch on how torchao's tensors enter the cache of compiled code.
    (UserWarning, r".*does not implement _stable_hash_for_caching"),
    # Inductor explains a choice inside its softmax kernel.
    (UserWarning, r"[\s\S]*Online softmax is disabled on the fly"),
)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return not _NOISY_INFORMATION.search(record.getMessage().strip())


def aligned(rows: Sequence[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """Columns under one another: numbers to the right, the columns ``words`` to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
