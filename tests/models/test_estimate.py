"""What is estimated without memory against what is measured with it, within a tenth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from insight.models import (
    MLP,
    PRESETS,
    ActivationCheckpointing,
    Alibi,
    DecoderConfig,
    DifferentialAttention,
    DynamicNTKScaling,
    EncoderConfig,
    EncoderDecoderConfig,
    GatedDeltaNet,
    GeGLU,
    GroupedQueryAttention,
    LatentAttention,
    LayerNorm,
    LayerPattern,
    LearnedPosition,
    MixtureOfExperts,
    NoPosition,
    ParallelResidual,
    RelativeBias,
    Retention,
    Rope,
    SandwichNorm,
)
from insight.models.estimate import (
    build_without_memory,
    decoder_of,
    measure_training_memory,
    network_size,
    training_memory,
)
from insight.runtime.errors import ConfigError

VOCABULARY = 300
BASE = GroupedQueryAttention(4, 2)
SMALL = DecoderConfig(hidden_size=64, num_layers=3, attention=BASE, max_sequence_length=128)
VARIANTS: dict[str, DecoderConfig] = {
    "multi-head": replace(SMALL, attention=GroupedQueryAttention(4)),
    "grouped": SMALL,
    "window": replace(SMALL, attention=replace(BASE, window=16)),
    "capped": replace(SMALL, attention=replace(BASE, score_soft_cap=20.0), block=SandwichNorm()),
    "alibi": replace(SMALL, attention=replace(BASE, position=Alibi())),
    "learned bias": replace(SMALL, attention=replace(BASE, position=RelativeBias())),
    "gpt2": replace(
        SMALL,
        attention=replace(BASE, position=NoPosition(), qkv_bias=True),
        feed_forward=MLP(bias=True),
        norm=LayerNorm(),
        input_position=LearnedPosition(),
        tie_embeddings=True,
    ),
    "neox": replace(SMALL, block=ParallelResidual(), feed_forward=GeGLU(), dropout=0.1),
    "latent": replace(SMALL, attention=LatentAttention(4, 24, 20)),
    "differential": replace(SMALL, attention=DifferentialAttention(4, 2)),
    "pattern": replace(SMALL, attention=LayerPattern((replace(BASE, window=16), BASE))),
    "mixture": replace(SMALL, feed_forward=MixtureOfExperts(4, 2)),
    "delta net": replace(SMALL, attention=GatedDeltaNet(4)),
    "retention": replace(SMALL, attention=Retention(4)),
    "recomputing": replace(SMALL, activation_checkpointing=ActivationCheckpointing(), dropout=0.1),
    "recomputing some": replace(SMALL, activation_checkpointing=ActivationCheckpointing(every=2)),
    "recomputing attention": replace(SMALL, activation_checkpointing=ActivationCheckpointing("attention")),
}
SHAPES = [((1, 128), False), ((4, 32), True)]  # float32, and bfloat16 over it


def ids(batch_size: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, VOCABULARY, (batch_size, length), generator=generator)


def saved_bytes(config: DecoderConfig, batch_size: int, length: int, bfloat16: bool) -> int:
    """Bytes of the distinct memories that autograd keeps of a real pass, weights apart."""
    network = config.build(VOCABULARY).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        hidden = network(ids(batch_size, length))
    storages[hidden.untyped_storage().data_ptr()] = hidden.untyped_storage()  # the loss keeps it
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in weights)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "bfloat16"), SHAPES, ids=["float32", "bf16-mixed"])
@pytest.mark.parametrize("name", VARIANTS)
def test_activations_equal_what_autograd_keeps(name: str, shape: tuple[int, int], bfloat16: bool) -> None:
    config, autocast = VARIANTS[name], torch.bfloat16 if bfloat16 else None
    estimate = training_memory(config, VOCABULARY, *shape, autocast=autocast)
    assert estimate.activations == pytest.approx(saved_bytes(config, *shape, bfloat16), rel=0.1)


def allocated_peak(config: DecoderConfig, batch_size: int, length: int) -> int:
    """The most bytes that torch's allocator gave out beyond what it had back, as its profiler saw it."""
    network = config.build(VOCABULARY).train()
    tokens = ids(batch_size, length)
    with torch.profiler.profile(profile_memory=True) as profiler:
        hidden = network(tokens)
        hidden.backward(torch.empty_like(hidden))
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


@pytest.mark.parametrize("name", VARIANTS)
def test_peak_equals_what_the_allocator_gave_out(name: str) -> None:
    config = VARIANTS[name]
    estimate = training_memory(config, VOCABULARY, 4, 64)
    assert estimate.peak == pytest.approx(allocated_peak(config, 4, 64), rel=0.1)
    assert estimate.activations <= estimate.peak_activations <= estimate.peak


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_without_numbers_equals_one_with_them(name: str) -> None:
    network = VARIANTS[name].build(VOCABULARY).train()
    real = measure_training_memory(network, ids(2, 64))
    estimate = training_memory(VARIANTS[name], VOCABULARY, 2, 64)
    assert estimate.activations == pytest.approx(real.activations, rel=0.01)
    assert estimate.peak == pytest.approx(real.peak, rel=0.01)


def test_activations_grow_with_the_batch_and_shrink_with_recomputation() -> None:
    one, four = (training_memory(SMALL, VOCABULARY, batch, 64).activations for batch in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.02)
    again = training_memory(VARIANTS["recomputing"], VOCABULARY, 4, 64)
    assert again.activations < 0.4 * four
    assert again.peak_activations < training_memory(SMALL, VOCABULARY, 4, 64).peak_activations


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_exact(name: str) -> None:
    config = VARIANTS[name]
    size, network = network_size(config, VOCABULARY, 64), config.build(VOCABULARY)
    assert size.num_parameters == sum({id(p): p.numel() for p in network.parameters()}.values())
    assert (size.num_active_parameters < size.num_parameters) == (name == "mixture")


COUNTED = [name for name in VARIANTS if "recomputing" not in name and name != "mixture"]


@pytest.mark.parametrize("name", COUNTED)
def test_flops_equal_a_count_of_the_operations(name: str) -> None:
    config, length = VARIANTS[name], 64
    attention: Any = config.attention
    if isinstance(attention, LayerPattern):
        layers: Any = attention.layers
        attention = LayerPattern(tuple(replace(layer, kernel="reference") for layer in layers))
    elif hasattr(attention, "kernel"):
        attention = replace(attention, kernel="reference")
    network = replace(config, attention=attention).build(VOCABULARY).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.logits(network(ids(2, length)))
    counted = counter.get_total_flops() / (2 * length)
    assert network_size(config, VOCABULARY, length).flops_per_token == pytest.approx(counted, rel=0.1)


def held_bytes(*owners: object) -> int:
    """Of the distinct memories of their tensors."""
    tensors = [t for owner in owners for t in vars(owner).values() if isinstance(t, torch.Tensor)]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [8, 128])
@pytest.mark.parametrize("name", VARIANTS)
def test_cache_equals_the_tensors_that_hold_it(name: str, length: int, dtype: torch.dtype) -> None:
    config = VARIANTS[name]
    layers = network_size(config, VOCABULARY, length, dtype).cache
    assert layers is not None
    cache = config.build(VOCABULARY).make_cache(1, length, dtype)
    for layer, estimate in zip(cache.layers, layers, strict=True):
        assert estimate.fixed + estimate.per_token * length == held_bytes(layer)


BOTH_WAYS = replace(BASE, position=RelativeBias(bidirectional=True))
PAIR = EncoderDecoderConfig(
    EncoderConfig(hidden_size=64, num_layers=2, attention=BOTH_WAYS),
    SMALL,
    replace(BASE, position=NoPosition()),
    share_embeddings=True,
)


def test_an_encoder_and_a_decoder() -> None:
    network, tokens = PAIR.build(VOCABULARY).train(), ids(2, 32)
    real = measure_training_memory(network, tokens)
    estimate = training_memory(PAIR, VOCABULARY, 2, 32)
    assert estimate.activations == pytest.approx(real.activations, rel=0.01)
    assert estimate.peak == pytest.approx(real.peak, rel=0.01)
    size = network_size(PAIR, VOCABULARY, 32)
    assert size.num_parameters == network.num_parameters()
    cache = network.make_cache(network.encode(tokens[:1]), 32)
    held = [held_bytes(*parts) for parts in zip(cache.layers, cache.cross_caches, strict=True)]
    assert [layer.fixed + 32 * layer.per_token for layer in size.cache or ()] == held
    assert all(layer.fixed >= 32 * layer.per_token for layer in size.cache or ())


def test_windows_and_latents_save_what_they_promise() -> None:
    window, full = network_size(VARIANTS["pattern"], VOCABULARY, 128).cache or (), 2 * 2 * 16 * 4
    assert [layer.per_token for layer in window] == [0, full, 0]
    assert window[0].fixed == pytest.approx(16 * full, rel=0.01)
    latent = network_size(VARIANTS["latent"], VOCABULARY, 128).cache or ()
    assert [layer.per_token for layer in latent] == [(24 + 16) * 4] * 3


def test_no_cache_where_keys_would_go_stale() -> None:
    attention = replace(BASE, position=Rope(scaling=DynamicNTKScaling(2.0, 64)))
    assert network_size(replace(SMALL, attention=attention), VOCABULARY, 128).cache is None
    assert network_size(replace(SMALL, attention=attention), VOCABULARY, 64).cache is not None


def test_large_networks_take_no_memory() -> None:
    preset = PRESETS["llama-3.1-8b"]
    network = build_without_memory(preset.config, preset.vocabulary_size)
    assert all(parameter.is_meta for parameter in network.parameters())
    assert network_size(preset.config, preset.vocabulary_size, 8192).cache == (
        network_size(preset.config, preset.vocabulary_size, 4096).cache
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_estimated(name: str) -> None:
    """At full width; more layers than each pattern has would be the same again."""
    preset = PRESETS[name]
    config: Any = preset.config
    halves = ("encoder", "decoder") if isinstance(config, EncoderDecoderConfig) else ()
    for half in halves:
        config = replace(config, **{half: _with_few_layers(getattr(config, half))})
    config = config if halves else _with_few_layers(config)
    memory = training_memory(config, preset.vocabulary_size, 1, 256)
    decoder = decoder_of(config)
    assert memory.activations > 256 * decoder.hidden_size * decoder.num_layers


def _with_few_layers(config: Any) -> Any:
    return replace(config, num_layers=min(config.num_layers, 6))


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        training_memory(SMALL, VOCABULARY, 0, 8)
    assert (error.value.option, error.value.value) == ("batch_size", 0)
    with pytest.raises(ConfigError) as error:
        network_size(SMALL, VOCABULARY, -1)
    assert (error.value.option, error.value.value) == ("sequence_length", -1)
    with pytest.raises(ConfigError) as error:
        training_memory(SMALL, 0, 1, 8)
    assert (error.value.option, error.value.value) == ("vocabulary_size", 0)
