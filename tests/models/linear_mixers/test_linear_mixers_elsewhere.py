"""Linear mixers with the rest: checkpointing, estimates, an encoder that is read, caches that lost a part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_networks import ALL, DELTA, HYBRIDS, VOCABULARY, config, decoder, ids

from insight.models import (
    ActivationCheckpointing,
    Attention,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    GroupedQueryAttention,
    LayerPattern,
    NoPosition,
)
from insight.models.estimate import measure_training_memory, network_size, training_memory
from insight.runtime.errors import ConfigError

HYBRID = HYBRIDS["attention first"]


@pytest.mark.parametrize("part", ["block", "attention"])
def test_computed_again_the_gradients_are_the_same(part: Any) -> None:
    results = []
    for checkpointing in (None, ActivationCheckpointing(part)):
        network = decoder(HYBRID, activation_checkpointing=checkpointing).train()
        network.logits(network(ids(length=80))).square().sum().backward()
        results.append([parameter.grad for parameter in network.parameters()])
    for first, second in zip(*results, strict=True):
        assert first is not None
        assert second is not None
        assert torch.equal(first, second)


@pytest.mark.parametrize("attention", ALL.values(), ids=ALL.keys())
def test_memory_is_known_before(attention: Attention) -> None:
    settings = config(attention)
    estimated = training_memory(settings, VOCABULARY, 2, 100)
    measured = measure_training_memory(settings.build(VOCABULARY).train(), ids(2, 100))
    assert estimated.activations == pytest.approx(measured.activations, rel=0.05)
    assert estimated.peak == pytest.approx(measured.peak, rel=0.05)


def test_the_estimate_of_a_cache_says_that_it_does_not_grow() -> None:
    size = network_size(config(HYBRID), VOCABULARY, 200)
    assert size.cache is not None
    full, recurrent = size.cache
    assert (full.fixed, full.per_token) == (0, 2 * 2 * 8 * 4)
    assert recurrent.per_token == 0
    state, tail, counts = 4 * 8 * 8 * 4, 3 * 96 * 4, 2 * 8
    assert recurrent.fixed == state + tail + counts


def test_a_decoder_that_reads_an_encoder() -> None:
    torch.manual_seed(0)
    network = (
        EncoderDecoderConfig(
            EncoderConfig(32, 1),
            DecoderConfig(32, 2, attention=HYBRID),
            GroupedQueryAttention(4, position=NoPosition()),
        )
        .build(VOCABULARY)
        .double()
        .eval()
    )
    with torch.no_grad():
        memory = network.encode(ids(2, 9))
        whole = network.decode(ids(), memory)
        cache = network.make_cache(memory)
        parts = [network.decode(part, cache=cache) for part in ids().split([7, *[1] * 23], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("attention", [DELTA, HYBRID, LayerPattern((GroupedQueryAttention(4), DELTA))])
def test_an_encoder_is_refused_when_configured(attention: Attention) -> None:
    with pytest.raises(ConfigError) as error:
        EncoderConfig(32, 2, attention=attention)
    assert (error.value.option, error.value.value) == ("attention", "GatedDeltaNet")


@pytest.mark.parametrize("part", ["inputs", "states"])
def test_neither_part_of_the_cache_can_be_missing(part: str) -> None:
    network, differences = decoder(DELTA), []
    for forgets in (False, True):
        cache = network.make_cache(2)
        with torch.no_grad():
            network(ids()[:, :10], cache=cache)
            if forgets:  # the fault: the tail of the convolution, or the state, begins anew
                for layer in cache.layers:
                    getattr(layer, part).zero_()
            rest = network(ids()[:, 10:], cache=cache)
            differences.append((rest - network(ids())[:, 10:]).abs().max())
    assert differences[0] < 1e-10
    assert differences[1] > 1e-2
