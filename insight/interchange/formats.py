"""The formats that models come in and leave in: a reader and a writer each, behind one small interface.

A reader takes a path and gives a :class:`ForeignModel`. A writer is asked first whether it can express an
:class:`OutgoingModel`, before anything is written, and then writes it into an empty folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from insight.data.tokenizers import BaseTokenizer
from insight.interchange.family import canonical
from insight.interchange.foreign_model import ForeignModel, OutgoingModel
from insight.interchange.huggingface import expressed, read_huggingface, write_huggingface
from insight.interchange.sources import READABLE, split_source
from insight.models import DecoderConfig
from insight.runtime.errors import CheckpointError, ConfigError, did_you_mean

READERS: dict[str, Callable[[Path], ForeignModel]] = {"hf": read_huggingface}
"""The reader of each kind of source; the names are those of :data:`READABLE`."""


def open_foreign(text: str, option: str = "--init_from") -> ForeignModel:
    """Open the model of another library that ``text`` names, e.g. ``hf:FOLDER``; its tensors are not read.

    Raises:
        ConfigError: ``text`` names no such model.
        CheckpointError: The model is damaged, unsafe or unknown.
        TokenizerError: Its tokenizer cannot be used.
    """
    kind, path = split_source(text)
    if kind is None:
        raise ConfigError("names no model of another library", f"use {READABLE}", option=option, value=text)
    return READERS[kind](Path(path).expanduser())


def check_foreign(
    model: ForeignModel, config: Any, tokenizers: Sequence[BaseTokenizer], option: str, value: str
) -> None:
    """Check that a model of another library has the network and the tokenizer of a run.

    Raises:
        CheckpointError: It has not; the message names the parts that differ.
    """
    if not isinstance(config, DecoderConfig):
        remedy = "begin a translation run from a checkpoint of one"
        raise CheckpointError("holds a decoder, and this run trains none", remedy, option=option, value=value)
    theirs, ours = (canonical(one) for one in (model.config, config))
    if theirs != ours:
        before, now = (one.to_dict()["init_args"] for one in (theirs, ours))
        different = ", ".join(key for key in now if before[key] != now[key])
        problem = f"has another network ({different} differ)"
        remedy = "leave out the options of model.network, which the model decides"
        raise CheckpointError(problem, remedy, option=option, value=value)
    if tokenizers[0].fingerprint() != model.tokenizer.fingerprint():
        problem = "comes with another tokenizer than data.tokenizer"
        raise CheckpointError(problem, "leave data.tokenizer out", option=option, value=value)


def weights_of(model: ForeignModel) -> dict[str, torch.Tensor]:
    """All tensors of a model of another library by our names, in float32."""
    return dict(model.tensors())


class Export:
    """A model on its way out in one format, which is known to be able to express it.

    Args:
        format: The name of the format.
        model: The model.

    Raises:
        ConfigError: The format is unknown, or cannot express the network; the message names the option and
            the nearest network that it can.
    """

    def __init__(self, format: str, model: OutgoingModel) -> None:
        if format not in WRITABLE:
            remedy = did_you_mean(format, WRITABLE, f"use {' or '.join(WRITABLE)}")
            raise ConfigError("is unknown", remedy, option="--format", value=format)
        self.model = model
        self.expression = expressed(model)

    @property
    def description(self) -> str:
        """The class of the other library that runs it."""
        return self.expression.family.architecture

    def write(self, folder: Path) -> None:
        """Write the files into ``folder``, which is empty."""
        write_huggingface(self.model, self.expression, folder)


WRITABLE = ("huggingface",)
"""The names of the formats that can be written."""
