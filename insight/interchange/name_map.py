"""Tensors of another library become ours by a table of names and rearrangements of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Rearrange = Callable[[torch.Tensor], torch.Tensor]
"""A linear rearrangement of a tensor's numbers, so that it turns gradients into gradients too."""


@dataclass(frozen=True)
class Rows:
    """The source of one of our tensors.

    Args:
        names: Names of the other library's tensors, whose rows lie one below the other in ours.
        rearrange: A change to the result; ``None`` for none.
    """

    names: tuple[str, ...]
    rearrange: Rearrange | None = None

    def read(self, tensors: Mapping[str, torch.Tensor], prefix: str) -> torch.Tensor | None:
        """Our tensor, or ``None`` where they have no such tensors."""
        names = [prefix + name for name in self.names]
        if not all(name in tensors for name in names):
            return None
        joined = torch.cat([tensors[name] for name in names])
        return joined if self.rearrange is None else self.rearrange(joined)


def rows(*names: str, rearrange: Rearrange | None = None) -> Rows:
    """A row of a table; see :class:`Rows`."""
    return Rows(names, rearrange)


def both(ours: str, *theirs: str, rearrange: Rearrange | None = None) -> dict[str, Rows]:
    """The rows of a table for the weight and the bias of a module, of which either may be missing.

    Args:
        ours: Our name of the module.
        theirs: The modules whose tensors lie one below the other in ours.
        rearrange: A change to both results; ``None`` for none.
    """
    return {
        f"{ours}.{kind}": Rows(tuple(f"{name}.{kind}" for name in theirs), rearrange)
        for kind in ("weight", "bias")
    }


@dataclass(frozen=True)
class NameMap:
    """Our names and where their tensors come from.

    Args:
        top: Tensors outside blocks.
        block: Tensors of one block, by their names inside our blocks.
        layer_prefix: The other library's name of a block, with ``{layer}`` for its number.
        shared: Tensors that all blocks share and the other library keeps in the first block, by their names
            inside our blocks.
    """

    top: Mapping[str, Rows]
    block: Mapping[str, Rows] = field(default_factory=dict)
    layer_prefix: str = "model.layers.{layer}."
    shared: Mapping[str, Rows] = field(default_factory=dict)

    def convert(self, tensors: Mapping[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
        """Tensors (weights or gradients) under our names.

        Args:
            tensors: The other library's tensors by name; a tied head or biases may be missing.
            num_layers: Number of blocks.
        """
        found = {name: source.read(tensors, "") for name, source in self.top.items()}
        for layer in range(num_layers):
            prefix = self.layer_prefix.format(layer=layer)
            for name, source in self.block.items():
                found[f"blocks.{layer}.{name}"] = source.read(tensors, prefix)
            for name, source in self.shared.items():
                found[f"blocks.{layer}.{name}"] = source.read(tensors, self.layer_prefix.format(layer=0))
        return {name: tensor for name, tensor in found.items() if tensor is not None}


@dataclass(frozen=True)
class EncoderDecoderNames:
    """The names of an encoder and a decoder.

    Args:
        encoder: The names inside the encoder.
        decoder: The names inside the decoder.
        top: Tensors outside both.
    """

    encoder: NameMap
    decoder: NameMap
    top: Mapping[str, Rows] = field(default_factory=dict)

    def convert(
        self, tensors: Mapping[str, torch.Tensor], num_layers: int, num_decoder_layers: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Tensors (weights or gradients) under our names; a shared one under each of them.

        Args:
            tensors: The other library's tensors by name; some may be missing.
            num_layers: Number of blocks of the encoder.
            num_decoder_layers: Number of blocks of the decoder; ``None`` = as many.
        """
        layers = num_layers if num_decoder_layers is None else num_decoder_layers
        found = NameMap(self.top).convert(tensors, 0)
        for part, names, count in (("encoder", self.encoder, num_layers), ("decoder", self.decoder, layers)):
            found |= {f"{part}.{name}": tensor for name, tensor in names.convert(tensors, count).items()}
        return found


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    """``(..., inputs, outputs)``, as GPT-2 stores matrices, to ``(..., outputs, inputs)``; a bias stays."""
    return tensor.mT if tensor.ndim > 1 else tensor


def unpacked(num_groups: int, queries_per_group: int, head_dim: int) -> Rearrange:
    """Rows packed group by group (queries, one key, one value) to all queries, all keys, all values.

    Args:
        num_groups: Key and value heads.
        queries_per_group: Query heads that share them.
        head_dim: Rows of a head.
    """

    def rearrange(tensor: torch.Tensor) -> torch.Tensor:
        groups = tensor.reshape(num_groups, queries_per_group + 2, head_dim, *tensor.shape[1:])
        parts = torch.split(groups, [queries_per_group, 1, 1], dim=1)
        return torch.cat([part.flatten(0, 2) for part in parts])

    return rearrange
