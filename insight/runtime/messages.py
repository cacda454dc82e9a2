"""What the program says about itself on stderr, and what the libraries under it are kept from saying."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def say(text: str) -> None:
    """Print one plain line on stderr: something the program decided or did.

    Only the first process of a distributed run speaks. Control characters (a file name may hold an escape
    sequence) are replaced, so a line is always one line and never drives the terminal.
    """
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) not in ("", "0"):
        return
    print(f"insight: {plain_line(text)}", file=sys.stderr, flush=True)


def plain_line(text: str) -> str:
    """``text`` with every run of control and direction characters replaced by one space."""
    return _CONTROL.sub(" ", text).strip()


def silence_libraries() -> None:
    """Keep known noise of the libraries off the terminal; everything else they say still comes through.

    Call it before lightning and jsonargparse are imported. Each entry says why it is noise.
    """
    # jsonargparse announces its own future changes to whoever runs the program; users cannot act on them.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # tokenizers warns at every fork of a data worker; our workers never encode.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    # "GPU available: ...", "TPU available: ...", tips about litlogger and other products on every start,
    # "`Trainer.fit` stopped: max_steps reached": run.json, our own lines and the report say the same.
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_drop_lightning_tips)

    for category, message in _NOISE:
        warnings.filterwarnings("ignore", message=message, category=category)


_TIPS = re.compile(
    r"litlogger|lightning\.ai|💡|(?:GPU|TPU|HPU) available|stopped: `max_|Using default `ModelSummary`"
)


def _drop_lightning_tips(record: logging.LogRecord) -> bool:
    return not _TIPS.search(record.getMessage())


_NOISE: tuple[tuple[type[Warning], str], ...] = (
    # Asks for more data workers; we choose their number ourselves (2 cores cannot feed two pools).
    (UserWarning, r".*does not have many workers which may be a bottleneck.*"),
)
