"""The cache of a beam search: the beams of a sentence share one store of keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from insight.models.caches.base import CacheShape, CacheStep, CrossCache, DecoderCache, LayerCache
from insight.models.caches.trees import BeamTree
from insight.models.masks import Mask
from insight.runtime.errors import ConfigError

_FEWEST_SLOTS = 64


class BeamLayerCache(LayerCache):
    """Keys and values of one layer, in slots that the beams of a sentence share.

    Args:
        shape: Sentences, data type, device and the tree of the beams.
        tree: Which slots each beam sees; the cache of the decoder keeps it.
        num_heads: Number of heads stored.
        head_dim: Channels of a value.
        extra_channels: Channels of a key beyond ``head_dim``.
    """

    def __init__(
        self, shape: CacheShape, tree: BeamTree, num_heads: int, head_dim: int, extra_channels: int
    ) -> None:
        self.tree = tree
        sizes = (shape.batch_size, num_heads, min(_FEWEST_SLOTS, shape.max_length))
        # Every slot that is shown has been written, so the memory needs no first values.
        self.keys = torch.empty(*sizes, head_dim + extra_channels, dtype=shape.dtype, device=shape.device)
        self.values = torch.empty(*sizes, head_dim, dtype=shape.dtype, device=shape.device)
        self.length = 0

    def append(self, key: Tensor, value: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Mask]:
        tree = self.tree
        start, stop = tree.start, tree.stop
        if stop > self.keys.shape[2]:
            self.keys, self.values = (_longer(store, start, stop) for store in (self.keys, self.values))
        self.length += key.shape[2]
        if tree.num_beams > 1:  # one token of each beam, which lie side by side
            beams = (-1, tree.num_beams, key.shape[1])
            key, value = (new.view(*beams, new.shape[3]).transpose(1, 2) for new in (key, value))
        self.keys[:, :, start:stop] = key
        self.values[:, :, start:stop] = value
        return self.keys[:, :, :stop].to(key.dtype), self.values[:, :, :stop].to(value.dtype), tree.mask(mask)

    def choose(self, sentences: Tensor | None, kept: Tensor | None) -> None:
        """Keep some sentences, and of their slots those that the tree has kept."""
        old = self.tree.stop if kept is None else None
        for name in ("keys", "values"):
            store = getattr(self, name)
            if sentences is not None:
                moved = (sentences != torch.arange(len(sentences), device=sentences.device)).nonzero()[:, 0]
                store[moved, :, :old] = store[sentences[moved], :, :old]
                store = store[: len(sentences)]
            if kept is not None:
                indices = kept[:, None, :, None].expand(-1, store.shape[1], -1, store.shape[3])
                store[:, :, : kept.shape[1]] = store.gather(2, indices)
            setattr(self, name, store)

    def reorder(self, rows: Tensor) -> None:
        raise NotImplementedError  # the beams are chosen all layers at once

    def can_truncate(self, length: int | Tensor) -> bool:
        return False


class BeamCache(DecoderCache):
    """The cache of a beam search, whose rows are the beams of each sentence side by side; one at first.

    Layers with attention to all tokens store each token once for all beams that continue it; other layers,
    with sliding windows or states, store every beam. The encoder's keys and values are stored once for a
    sentence.

    Args:
        layers: One cache for each layer.
        tree: The tree that layers of shared slots refer to.
        max_length: The highest number of tokens that a beam can have.
        cross_caches: Keys and values of the encoder's states, for each layer; empty without an encoder.
    """

    def __init__(
        self,
        layers: Sequence[LayerCache],
        tree: BeamTree,
        max_length: int,
        cross_caches: Sequence[CrossCache] = (),
    ) -> None:
        super().__init__(layers, tree.num_sentences, max_length, cross_caches)
        self.tree = tree

    def place(self, input_ids: Tensor, lengths: Tensor | None) -> CacheStep | None:
        if lengths is not None:
            raise ConfigError("lengths with beams: their rows are equally long", "pass rows without padding")
        if self.tree.num_beams > 1 and input_ids.shape[1] > 1:
            problem = f"{input_ids.shape[1]} tokens at once for {self.tree.num_beams} beams"
            raise ConfigError(problem, "pass one token of each beam")
        step = super().place(input_ids, lengths)
        self.tree.grow(input_ids.shape[1])
        return step

    def choose_beams(self, beams: Tensor, sentences: Tensor | None = None) -> None:
        """Choose the beams that go on.

        Args:
            beams: For each new beam which former one of its sentence it continues, int64 ``(sentences,
                beams)``; former ones may repeat and be left out.
            sentences: The former sentences that go on, int64 ``(sentences,)``; ``None`` = all.
        """
        former = self.tree.num_beams
        kept = self.tree.choose(beams, sentences)
        numbers = torch.arange(len(beams), device=beams.device) if sentences is None else sentences
        rows = (numbers.unsqueeze(1) * former + beams).flatten()
        for layer in self.layers:
            if isinstance(layer, BeamLayerCache):
                layer.choose(sentences, kept)
            else:
                layer.reorder(rows)
        if sentences is not None:
            for cross_cache in self.cross_caches:
                cross_cache.reorder(sentences)
        self.batch_size = rows.shape[0]

    def truncate(self, length: int | Tensor) -> None:
        raise ConfigError("a cache of beams forgets no tokens", "make a new cache")

    def reorder(self, rows: Tensor) -> None:
        raise ConfigError("the rows of this cache are beams of sentences", "use choose_beams")


def _longer(store: Tensor, used: int, needed: int) -> Tensor:
    """Return a store with at least twice the slots, the first ``used`` ones copied."""
    sizes = list(store.shape)
    sizes[2] = max(needed, 2 * sizes[2])
    longer = store.new_empty(sizes)
    longer[:, :, :used] = store[:, :, :used]
    return longer
