"""Messages of the program on stderr, and the filters that keep the noise of libraries off it."""

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
    """Print one line on stderr about something that the program decided or did; see :func:`plain_line`.

    Only the first process of a distributed run prints.
    """
    if is_first_process():
        print_line(text)


def print_line(text: str) -> None:
    """:func:`say` from any process."""
    print(f"insight: {plain_line(text)}", file=sys.stderr, flush=True)


def write_what_the_console_can() -> None:
    """Make a console print ``?`` for characters that it cannot show, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def plain_line(text: str) -> str:
    """``text`` on one line that cannot drive the terminal: control and direction characters become spaces."""
    return _CONTROL.sub(" ", text).strip()


def silence_libraries() -> None:
    """Keep known noise of the libraries off the terminal; all their other messages still appear.

    Call it before lightning and jsonargparse are imported; calling it again changes nothing. Messages are
    matched by their words, never by a whole category or logger, so that new messages of a later version
    appear. A comment at each pattern below says why the message is noise.
    """
    # jsonargparse announces changes of its own interface, which a user of the program cannot act on. It reads
    # this variable at import; a developer who wants to see the messages sets it to "all".
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).addFilter(_is_worth_saying)
    for category, message in _NOISY_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)


_NOISY_LOGGERS = (
    # Lightning logs through one of these two, depending on which was imported last.
    *("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"),
    "lightning.fabric.utilities.distributed",  # prints a line of its own for each process that joins
    *("torchao", "torch.utils._pytree", "torch.utils.cpp_extension"),
)

_NOISY_INFORMATION = re.compile(
    "|".join(
        (
            # This advertises a product (litlogger, Lightning's cloud) at every start.
            r"litlogger|litmodels|💡 Tip",
            # Insight describes the machine in one line, with measured rates.
            r"^(GPU|TPU|HPU|IPU) available: ",
            # The precision is part of that line.
            r"^Using (bfloat16|16bit) Automatic Mixed Precision",
            # Insight's last line says why training ended.
            r"^`Trainer\.fit` stopped: `max_",
            # --resume itself names the checkpoint and what is restored from it.
            r"^(Restoring states|Restored all states|Loaded model weights) from ",
            # `insight check` itself says that it took one step and kept nothing.
            r"^Running in `fast_dev_run` mode",
            # The line about the run folder says how many processes train on which device.
            r"^Initializing distributed: |All distributed processes registered",
            # After Ctrl-C, Insight prints a line that says how to continue.
            r"Detected KeyboardInterrupt",
            # These are torchao's CUDA kernels on a machine without CUDA. Every method is tried before use.
            r"^Failed to load .*_C\S*\.so",
            # This message between torchao and torch does not concern users.
            r"is an Enum subclass and is now natively supported",
            # A toolkit without a device is no fault; the line about the machine says what computes.
            r"^No CUDA runtime is found, using CUDA_HOME",
        )
    )
)

_NOISY_WARNINGS: tuple[tuple[type[Warning], str], ...] = (
    # This asks for more loader workers, but batches are cut from a memory-mapped file in microseconds, and
    # worker processes beside the training threads slow small machines down.
    (UserWarning, r".*does not have many workers which may be a bottleneck"),
    # Short runs (the demo, tests) have fewer batches than steps between log lines, on purpose.
    (UserWarning, r".*number of training batches \(\d+\) is smaller than the logging interval"),
    # The folder is made together with the run, and a resumed run continues in it.
    (UserWarning, r".*(Checkpoint directory|Experiment logs directory) .* exists and is not empty"),
    # The data module holds the position, not the loader. It restarts in the middle of an epoch, and refuses a
    # position that belongs to other data.
    (UserWarning, r".*resuming from a checkpoint that ended before the epoch ended"),
    # Metrics are summed over all processes before they are logged.
    (UserWarning, r".*It is recommended to use `self\.log\(.*sync_dist=True\)`"),
    # Measuring a checkpoint needs none of the callbacks of its training.
    (UserWarning, r".*callbacks used to create the checkpoint need to be provided"),
    # Lightning would use bf16-mixed instead of 16-mixed on a CPU; `insight check` and `fit` refuse that.
    (UserWarning, r".*AMP with fp16 is not supported on CPU"),
    # The model summary guesses megabytes; the report shows parameters.
    (UserWarning, r".*Precision .* is not supported by the model summary"),
    # Without text to validate on (validation_fraction: 0) there is no validation loader, as requested.
    (UserWarning, r".*Total length of `.*` across ranks is zero"),
    # The login node of a cluster has srun even when the user did not ask for it.
    (UserWarning, r".*`srun` command is available on your system but is not used"),
    # These messages between Lightning and torch concern nothing that a user can change.
    (FutureWarning, r".*isinstance\(treespec, LeafSpec\)` is deprecated"),
    (DeprecationWarning, r".*isinstance\(treespec, LeafSpec\)` is deprecated"),
    (FutureWarning, r".*pynvml package is deprecated"),
    # This concerns how torchao's tensors enter torch's cache of compiled code.
    (UserWarning, r".*does not implement _stable_hash_for_caching"),
    # Inductor explains a choice inside its softmax kernel.
    (UserWarning, r"[\s\S]*Online softmax is disabled on the fly"),
)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return not _NOISY_INFORMATION.search(record.getMessage().strip())


def aligned(rows: Sequence[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """Columns of text: the columns in ``words`` are aligned to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    columns = [f"{{:{'<' if column in words else '>'}{width}}}" for column, width in enumerate(widths)]
    return "\n".join("  ".join(columns).format(*row).rstrip() for row in rows)
