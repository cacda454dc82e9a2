"""The cache of a beam search against whole passes over every beam's own tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    Alibi,
    BeamCache,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GatedDeltaNet,
    GroupedQueryAttention,
    LatentAttention,
    LayerPattern,
    NoPosition,
    Position,
    RelativeBias,
    Rope,
)
from insight.models.caches import trees
from insight.runtime.errors import ConfigError

VOCABULARY, STEPS, WIDTH = 30, 30, 3

ATTENTIONS: dict[str, Any] = {
    "rope, grouped": GroupedQueryAttention(4, 2),
    "relative bias": GroupedQueryAttention(2, position=RelativeBias(8, 20)),
    "alibi": GroupedQueryAttention(2, position=Alibi()),
    "sinks and gate": GroupedQueryAttention(2, sinks=True, output_gate=True),
    "window": GroupedQueryAttention(2, window=4),
    "chunks": GroupedQueryAttention(2, chunk_size=5),
    "latent": LatentAttention(2, position=Rope(), latent_size=8, head_dim=8, rotary_dim=4, value_dim=8),
    "window and all": LayerPattern((GroupedQueryAttention(2, window=4), GroupedQueryAttention(2))),
    "linear and all": LayerPattern((GatedDeltaNet(2), GroupedQueryAttention(2))),
}


def build(attention: Any, places: Position | None = None) -> EncoderDecoder:
    config = EncoderDecoderConfig(
        EncoderConfig(hidden_size=24, num_layers=1, attention=GroupedQueryAttention(2)),
        DecoderConfig(hidden_size=16, num_layers=2, attention=attention, max_sequence_length=64),
        GroupedQueryAttention(4, 2, position=NoPosition() if places is None else places),
    )
    model: EncoderDecoder = build_shaken(config, VOCABULARY, noise=0.2).eval()
    return model


def numbers(high: int, *shape: int, seed: int) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def largest_error(model: EncoderDecoder) -> float:
    """Decode 3, then 2 sentences with beams chosen at random, and compare every step with whole passes."""
    sources = numbers(VOCABULARY, 3, 9, seed=1)
    mask = torch.arange(9) < torch.tensor([9, 4, 6])[:, None]
    kept, histories = [0, 1, 2], [[[7]], [[7]], [[7]]]
    worst = 0.0
    with torch.no_grad():
        cache = model.decoder.make_beam_cache(3, encoder_states=model.encode(sources, source_mask=mask))
        for step in range(STEPS):
            newest = torch.tensor([beam[-1] for beams in histories for beam in beams])
            hidden = model.decode(newest.unsqueeze(1), cache=cache)[:, 0]
            rows = torch.tensor([beam for beams in histories for beam in beams])
            owners = torch.tensor(
                [number for number, beams in zip(kept, histories, strict=True) for _ in beams]
            )
            whole = model(sources[owners], rows, source_mask=mask[owners])[:, -1]
            worst = max(worst, float((hidden - whole).abs().max()))
            # The last sentence takes the place of the first, which leaves.
            sentences = torch.tensor([2, 1]) if step == 12 else None
            order = [0, 1, 2][: len(kept)] if sentences is None else sentences.tolist()
            beams = numbers(len(histories[0]), len(order), WIDTH, seed=10 + step)
            tokens = numbers(VOCABULARY, len(order), WIDTH, seed=100 + step)
            histories = [
                [[*histories[place][beam], token] for beam, token in zip(*row, strict=True)]
                for place, *row in zip(order, beams.tolist(), tokens.tolist(), strict=True)
            ]
            kept = [kept[place] for place in order]
            cache.choose_beams(beams, sentences)
    return worst


@pytest.mark.parametrize("name", ATTENTIONS)
def test_beams_equal_whole_passes(name: str) -> None:
    assert largest_error(build(ATTENTIONS[name])) < 1e-10


@pytest.mark.parametrize("places", [Alibi(bidirectional=True), RelativeBias(8, 20, bidirectional=True)])
def test_beams_keep_their_places_beside_the_source(places: Position) -> None:
    assert largest_error(build(ATTENTIONS["rope, grouped"], places)) < 1e-10


def test_a_beam_at_another_place_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = type(build(ATTENTIONS["rope, grouped"]).decoder)
    run = stack.run

    def one_further(self: Any, hidden: torch.Tensor, position_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        return run(self, hidden, position_ids + (hidden.shape[1] == 1), *rest)

    monkeypatch.setattr(stack, "run", one_further)
    linear = GroupedQueryAttention(2, position=NoPosition())
    assert largest_error(build(linear)) < 1e-10
    assert largest_error(build(linear, Alibi(bidirectional=True))) > 1e-3


def test_dead_tokens_are_packed_away() -> None:
    """The store holds far fewer tokens than the beams have written, and the results above stay right."""
    model = build(ATTENTIONS["rope, grouped"])
    with torch.no_grad():
        cache = model.make_beam_cache(model.encode(numbers(VOCABULARY, 2, 9, seed=1)))
        for step in range(STEPS):
            rows = 2 if step == 0 else 2 * WIDTH
            model.decode(numbers(VOCABULARY, rows, 1, seed=step), cache=cache)
            cache.choose_beams(torch.zeros(2, WIDTH, dtype=torch.int64))  # only the first beam survives
    assert cache.length == STEPS
    assert cache.tree.stop <= STEPS + 8 * WIDTH < WIDTH * STEPS


@pytest.mark.parametrize("fault", ["beams see their neighbours", "slots are packed in another order"])
def test_a_fault_would_be_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "beams see their neighbours":
        monkeypatch.setattr(trees.BeamMask, "allowed", lambda mask, *_: torch.ones_like(mask.tokens)[:, None])
    else:
        pack = trees.BeamTree._pack

        def reversed_order(tree: trees.BeamTree) -> torch.Tensor | None:
            kept = pack(tree)
            return None if kept is None else kept.flip(1)

        monkeypatch.setattr(trees.BeamTree, "_pack", reversed_order)
    assert largest_error(build(ATTENTIONS["rope, grouped"])) > 1e-3


def test_what_beams_cannot_do_is_refused() -> None:
    model = build(ATTENTIONS["rope, grouped"])
    with torch.no_grad():
        cache = model.make_beam_cache(model.encode(numbers(VOCABULARY, 2, 9, seed=1)))
        assert isinstance(cache, BeamCache)
        model.decode(numbers(VOCABULARY, 2, 4, seed=1), cache=cache)  # a beginning of any length
        cache.choose_beams(torch.zeros(2, WIDTH, dtype=torch.int64))
        for call in (
            lambda: model.decode(numbers(VOCABULARY, 2 * WIDTH, 2, seed=1), cache=cache),
            lambda: model.decode(numbers(VOCABULARY, 2, 1, seed=1), cache=cache),
            lambda: model.decode(
                numbers(VOCABULARY, 2 * WIDTH, 1, seed=1), cache=cache, lengths=torch.ones(2 * WIDTH).long()
            ),
            lambda: cache.reorder(torch.arange(6)),
            lambda: cache.truncate(1),
        ):
            with pytest.raises(ConfigError):
                call()
