"""A model of another library in our words: what every reader gives, and every writer takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from insight.data.tokenizers import BaseTokenizer
from insight.models import DecoderConfig

NamedTensors = Iterator[tuple[str, torch.Tensor]]


@dataclass(frozen=True)
class ForeignModel:
    """A network, its tokenizer, and its tensors, which are read one at a time.

    Args:
        config: The network.
        tokenizer: Its tokenizer, with as many ids as the embedding has rows.
        tensors: Reads the tensors: pairs of our name and float32 numbers, in the order of the network.
        source: The path that was read, for messages.
        chat_template: The template of a conversation (Jinja), as text.
        generation: The defaults of generation under the names of transformers, such as ``temperature``.
        notes: Sentences about parts that the reader left out.
    """

    config: DecoderConfig
    tokenizer: BaseTokenizer
    tensors: Callable[[], NamedTensors]
    source: str
    chat_template: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutgoingModel:
    """A model of ours on its way to another library; arguments as in :class:`ForeignModel`.

    ``weights`` are the network's tensors by our names, ``dtype`` the type in which numbers are written.
    """

    config: DecoderConfig
    tokenizer: BaseTokenizer
    weights: Mapping[str, torch.Tensor]
    dtype: torch.dtype = torch.float32
    chat_template: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
