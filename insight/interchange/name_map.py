"""Conversion of another library's tensors to ours by tables of names and rearrangements of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Rearrange = Callable[[torch.Tensor], torch.Tensor]
"""A linear rearrangement of a tensor's numbers, so that it also turns gradients into gradients."""


class Rows:
    """The source of one of our tensors: the other library's tensors whose rows are concatenated in it.

    ``rearrange`` is applied to the result, if it is given.
    """

    def __init__(self, *names: str, rearrange: Rearrange | None = None) -> None:
        self.names, self.rearrange = names, rearrange

    def read(self, tensors: Mapping[str, torch.Tensor], prefix: str) -> torch.Tensor | None:
        """Our tensor, or ``None`` where the other library has no such tensors."""
        names = [prefix + name for name in self.names]
        if not all(name in tensors for name in names):
            return None
        joined = torch.cat([tensors[name] for name in names])
        return joined if self.rearrange is None else self.rearrange(joined)


def both(ours: str, *theirs: str, rearrange: Rearrange | None = None) -> dict[str, Rows]:
    """The entries for the weight and the bias of a module of ours; either may be missing."""
    return {
        f"{ours}.{kind}": Rows(*(f"{name}.{kind}" for name in theirs), rearrange=rearrange)
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
        found = {name: source.read(tensors, "") for name, source in self.top.items()}
        for layer in range(num_layers):
            for entries, number in ((self.block, layer), (self.shared, 0)):
                prefix = self.layer_prefix.format(layer=number)
                for name, source in entries.items():
                    found[f"blocks.{layer}.{name}"] = source.read(tensors, prefix)
        return {name: tensor for name, tensor in found.items() if tensor is not None}


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
