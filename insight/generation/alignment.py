"""Which source words a translation was read from: the weights of cross-attention, word by word."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from insight.data.tokenizers import BaseTokenizer
from insight.generation.modes import evaluation_mode
from insight.models import EncoderDecoder
from insight.models.attention.grouped_query import DifferentialModule, GroupedQueryModule
from insight.models.attention.kernels import ReferenceKernel, ScoreChange
from insight.models.attention.kernels.base import PLAIN
from insight.models.masks import Mask

END = "(end)"
"""The name of the token that ends every source."""
_FEW_TOKENS = 8


@dataclass(frozen=True)
class Alignment:
    """How much each word of a translation read each word of its source.

    Attributes:
        source: Words of the source; :data:`END` is the last.
        target: Words of the translation.
        weights: A row for each word of the translation: the sum over the tokens of each source word, the mean
            over the tokens of the own word.
        layer: The layer of the decoder that was looked at, from 0.
        head: The head in it, from 0; ``None`` for the mean of all heads.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    layer: int
    head: int | None


class _RecordingKernel(ReferenceKernel):
    """The reference kernel, which keeps the weights of its newest call."""

    newest: Tensor

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, change: ScoreChange = PLAIN
    ) -> Tensor:
        self.newest = self.weights(query, key, mask, scale, change)
        return super().__call__(query, key, value, mask, scale, change)


@contextlib.contextmanager
def recorded_cross_attention(network: EncoderDecoder) -> Iterator[list[Tensor]]:
    """Record what the cross-attention of a network weighs inside the ``with`` block.

    Cross-attention runs through the reference kernel meanwhile, which computes what the fast ones do.

    Yields:
        A list that holds, after the block, the weights of the newest call in each layer,
        ``(batch, heads, target, source)``.
    """
    layers = [
        module
        for module in network.modules()
        if isinstance(module, GroupedQueryModule) and module.reads_encoder
    ]
    kernels = [layer.kernel for layer in layers]
    recorded: list[Tensor] = []
    recorders = [_RecordingKernel() for _ in layers]
    try:
        for layer, recorder in zip(layers, recorders, strict=True):
            layer.kernel = recorder
        yield recorded
        recorded += (_weights(*pair) for pair in zip(layers, recorders, strict=True))
    finally:
        for layer, kernel in zip(layers, kernels, strict=True):
            layer.kernel = kernel


def _weights(layer: GroupedQueryModule, recorder: _RecordingKernel) -> Tensor:
    if not isinstance(layer, DifferentialModule):
        return recorder.newest
    first, second = recorder.newest.chunk(2, dim=1)
    return first - layer.subtracted_share().to(first.dtype) * second


def align(
    network: EncoderDecoder,
    tokenizers: tuple[BaseTokenizer, BaseTokenizer],
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> list[Alignment]:
    """Align translations with their sources by the head of cross-attention that is most diagonal.

    Args:
        network: The model that translated.
        tokenizers: Tokenizers of source and target.
        pairs: Token ids of each source as the network reads it, its end token included, and of its
            translation without one. Both have tokens.
    """
    recorded = []
    begin_id = tokenizers[1].end_of_text_id
    device = network.decoder.head_weight.device
    for source_ids, target_ids in pairs:
        rows = (
            torch.tensor([list(ids)], device=device) for ids in (source_ids, [begin_id, *target_ids[:-1]])
        )
        with evaluation_mode(network), torch.inference_mode(), recorded_cross_attention(network) as weights:
            network(*rows)
        recorded.append([layer[0].float().clamp(min=0).cpu() for layer in weights])
    if not recorded:
        return []
    layer, head = most_diagonal(recorded)
    alignments = []
    for (source_ids, target_ids), weights in zip(pairs, recorded, strict=True):
        chosen = weights[layer].mean(0) if head is None else weights[layer][head]
        source, target = (
            _words(tokenizer, ids)
            for tokenizer, ids in zip(tokenizers, (source_ids, target_ids), strict=True)
        )
        merged = tuple(
            tuple(float(chosen[rows][:, columns].sum(1).mean()) for _, columns in source)
            for _, rows in target
        )
        of_source, of_target = (tuple(name for name, _ in words) for words in (source, target))
        alignments.append(Alignment(of_source, of_target, merged, layer, head))
    return alignments


def most_diagonal(recorded: Sequence[Sequence[Tensor]]) -> tuple[int, int | None]:
    """The layer and head, or the layer and ``None`` for its mean, whose weights lie nearest to the diagonal.

    Args:
        recorded: For each sentence the weights of each layer, ``(heads, target, source)``.
    """
    distances: dict[tuple[int, int | None], float] = {}
    for layers in recorded:
        for layer, weights in enumerate(layers):
            for head, plane in ((None, weights.mean(0)), *enumerate(weights)):
                place = layer, head
                distances[place] = distances.get(place, 0.0) + _distance(plane)
    return min(distances, key=lambda place: distances[place])


def _distance(weights: Tensor) -> float:
    """Mean distance of the weights ``(target, source)`` from the diagonal, as a share of the length.

    The weight that a sink takes counts as far away.
    """
    steps = [torch.linspace(0, 1, size) for size in weights.shape]
    away = (steps[0][:, None] - steps[1]).abs()
    return float(((weights * away).sum(1) + (1 - weights.sum(1)).clamp(min=0)).mean())


def _words(tokenizer: BaseTokenizer, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Words with the places of their tokens; tokens where nothing separates words in a longer text."""
    names = {number: name for name, number in tokenizer.special_tokens.items()}
    names[tokenizer.end_of_text_id] = END
    pieces = [b"" if number in names else tokenizer.token_bytes(number) for number in ids]
    separates = len(ids) <= _FEW_TOKENS or any(piece[:1].isspace() for piece in pieces[1:])
    words: list[tuple[bytes, list[int]]] = []
    for place, piece in enumerate(pieces):
        goes_on = words and separates and words[-1][0] and piece and not piece[:1].isspace()
        if goes_on:
            words[-1] = words[-1][0] + piece, [*words[-1][1], place]
        else:
            words.append((piece, [place]))
    shown = ((text.decode("utf-8", "replace").strip(), places) for text, places in words)
    return [(text or names.get(ids[places[0]], " "), places) for text, places in shown]
