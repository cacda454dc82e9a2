"""Conversion of another library's tensors to ours by tables of names and rearrangements of rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

Rearrange = Callable[[torch.Tensor], torch.Tensor]
"""A linear rearrangement of a tensor's numbers, so that it also turns gradients into gradients."""


class Rows:
    """The source of one of our tensors: the other library's tensors whose rows are concatenated in it.

    Args:
        names: The names of those tensors, in order.
        rearrange: A change of the concatenated tensor; ``None`` for none.
        restore: The inverse of ``rearrange``, for writing.
        otherwise: Another form of the source, which is read where the names are missing.
    """

    def __init__(
        self,
        *names: str,
        rearrange: Rearrange | None = None,
        restore: Rearrange | None = None,
        otherwise: Rows | None = None,
    ) -> None:
        self.names, self.rearrange, self.restore = names, rearrange, restore
        self.otherwise = otherwise

    def read(self, tensors: Mapping[str, torch.Tensor], prefix: str) -> torch.Tensor | None:
        """Our tensor, or ``None`` where the other library has no such tensors."""
        joined = self._join(tensors, prefix)
        if joined is None:
            return None if self.otherwise is None else self.otherwise.read(tensors, prefix)
        return joined if self.rearrange is None else self.rearrange(joined)

    def write(
        self, tensor: torch.Tensor, prefix: str, splits: Sequence[int] | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The other library's tensors by name, as views where no rearrangement needs a copy.

        ``splits`` are the rows of each; without them all have equally many.
        """
        if self.restore is not None:
            tensor = self.restore(tensor)
        sizes = splits or [tensor.shape[0] // len(self.names)] * len(self.names)
        parts = torch.split(tensor, list(sizes)) if len(self.names) > 1 else [tensor]
        for name, part in zip(self.names, parts, strict=True):
            yield prefix + name, part

    def _join(self, tensors: Mapping[str, torch.Tensor], prefix: str) -> torch.Tensor | None:
        names = [prefix + name for name in self.names]
        if not all(name in tensors for name in names):
            return None
        # A single tensor need not be copied.
        return tensors[names[0]] if len(names) == 1 else torch.cat([tensors[name] for name in names])


class Experts(Rows):
    """The source of the stacked tensors of all experts, with names that hold ``{expert}`` for its number."""

    def write(
        self, tensor: torch.Tensor, prefix: str, splits: Sequence[int] | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        for expert, single in enumerate(tensor):
            names = [name.format(expert=expert) for name in self.names]
            yield from Rows(*names).write(single, prefix, splits)

    def _join(self, tensors: Mapping[str, torch.Tensor], prefix: str) -> torch.Tensor | None:
        found = []
        for expert in itertools.count():
            names = [prefix + name.format(expert=expert) for name in self.names]
            if not all(name in tensors for name in names):
                break
            found.append(torch.cat([tensors[name] for name in names]))
        return torch.stack(found) if found else None


def both(
    ours: str, *theirs: str, rearrange: Rearrange | None = None, restore: Rearrange | None = None
) -> dict[str, Rows]:
    """The entries for the weight and the bias of a module of ours; either may be missing."""
    return {
        f"{ours}.{kind}": Rows(*(f"{name}.{kind}" for name in theirs), rearrange=rearrange, restore=restore)
        for kind in ("weight", "bias")
    }


def top(embedding: str, norm: str) -> dict[str, Rows]:
    """The entries for the embedding and the last norm."""
    return both("embedding", embedding) | both("norm", norm)


def norms(attention: str, feed_forward: str | None = None) -> dict[str, Rows]:
    """The entries for the norms before attention and, unless both share one, before the feed-forward."""
    entries = both("attention_norm", attention)
    return entries | both("feed_forward_norm", feed_forward) if feed_forward else entries


@dataclass(frozen=True)
class NameMap:
    """Our names and the sources of their tensors.

    Args:
        top: Tensors outside blocks.
        block: Tensors of one block, by their names inside our blocks.
        layer_prefix: The other library's name of a block, with ``{layer}`` for its number.
        shared: Tensors that all blocks share and the other library stores in its first block, by their names
            inside our blocks.
    """

    top: Mapping[str, Rows]
    block: Mapping[str, Rows] = field(default_factory=dict)
    layer_prefix: str = "model.layers.{layer}."
    shared: Mapping[str, Rows] = field(default_factory=dict)

    def convert(self, tensors: Mapping[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
        """The tensors (weights or gradients) under our names; a tied head or biases may be missing."""
        found = {name: source.read(tensors, prefix) for name, source, prefix in self.sources(num_layers)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def sources(self, num_layers: int) -> Iterator[tuple[str, Rows, str]]:
        """Our names with their sources, and what the other library puts before the names of each source."""
        for name, source in self.top.items():
            yield name, source, ""
        for layer in range(num_layers):
            for entries, number in ((self.block, layer), (self.shared, 0)):
                prefix = self.layer_prefix.format(layer=number)
                for name, source in entries.items():
                    yield f"blocks.{layer}.{name}", source, prefix


@dataclass(frozen=True)
class EncoderDecoderNames:
    """The names of an encoder and a decoder, and of the tensors outside both (``top``)."""

    encoder: NameMap
    decoder: NameMap
    top: Mapping[str, Rows] = field(default_factory=dict)

    def convert(
        self, tensors: Mapping[str, torch.Tensor], num_layers: int, num_decoder_layers: int | None = None
    ) -> dict[str, torch.Tensor]:
        """The tensors (weights or gradients) under our names; a shared one under each of its names.

        Some tensors may be missing. ``num_layers`` counts the encoder's blocks; ``num_decoder_layers=None``
        means that the decoder has as many.
        """
        layers = num_layers if num_decoder_layers is None else num_decoder_layers
        found = NameMap(self.top).convert(tensors, 0)
        for part, names, count in (("encoder", self.encoder, num_layers), ("decoder", self.decoder, layers)):
            found |= {f"{part}.{name}": tensor for name, tensor in names.convert(tensors, count).items()}
        return found


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    """Transpose ``(..., inputs, outputs)``, GPT-2's layout, to ``(..., outputs, inputs)``; keep a bias."""
    return tensor.mT if tensor.ndim > 1 else tensor


def unpacked(num_groups: int, queries_per_group: int, head_dim: int) -> Rearrange:
    """Rearrange rows packed by groups (queries, one key, one value) to all queries, all keys, all values.

    Each of ``num_groups`` groups has ``queries_per_group`` heads of queries that share a key and a value; a
    head has ``head_dim`` rows.
    """

    def rearrange(tensor: torch.Tensor) -> torch.Tensor:
        groups = tensor.reshape(num_groups, queries_per_group + 2, head_dim, *tensor.shape[1:])
        parts = torch.split(groups, [queries_per_group, 1, 1], dim=1)
        return torch.cat([part.flatten(0, 2) for part in parts])

    return rearrange


def packed(num_groups: int, queries_per_group: int, head_dim: int) -> Rearrange:
    """The inverse of :func:`unpacked`."""

    def restore(tensor: torch.Tensor) -> torch.Tensor:
        rows = num_groups * head_dim
        parts = torch.split(tensor, [rows * queries_per_group, rows, rows])
        groups = [part.reshape(num_groups, -1, head_dim, *tensor.shape[1:]) for part in parts]
        return torch.cat(groups, dim=1).flatten(0, 2)

    return restore
