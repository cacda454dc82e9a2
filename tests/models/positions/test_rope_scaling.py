"""Scaled rotary frequencies against transformers' functions, and what they promise by themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from insight.models import (
    Decoder,
    DecoderConfig,
    DynamicNTKScaling,
    GroupedQueryAttention,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rope,
    RopeScaling,
    YarnScaling,
)
from insight.models.positions.rope import Frequencies
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError

SHORT = tuple(1 + 0.01 * i for i in range(32))
LONG = tuple(1.5 + 0.25 * i for i in range(32))
LONGROPE = LongRopeScaling(SHORT, LONG, 8.0, 512)
LONGROPE_OF_TRANSFORMERS = {
    "rope_type": "longrope",
    "factor": 8.0,
    "original_max_position_embeddings": 512,
    "short_factor": list(SHORT),
    "long_factor": list(LONG),
}

CASES: dict[str, tuple[RopeScaling, dict[str, Any], int]] = {
    "linear": (LinearScaling(4.0), {"rope_type": "linear", "factor": 4.0}, 10),
    "dynamic, short": (DynamicNTKScaling(3.0, 64), {"rope_type": "dynamic", "factor": 3.0}, 50),
    "dynamic, long": (DynamicNTKScaling(3.0, 64), {"rope_type": "dynamic", "factor": 3.0}, 200),
    "yarn": (
        YarnScaling(8.0, 512),
        {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512},
        10,
    ),
    "yarn of gpt-oss": (
        YarnScaling(32.0, 4096, truncate=False),
        {
            "rope_type": "yarn",
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
        10,
    ),
    "yarn with its own amplitude": (
        YarnScaling(8.0, 512, beta_fast=16, beta_slow=2, attention_factor=1.25),
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "beta_fast": 16,
            "beta_slow": 2,
            "attention_factor": 1.25,
        },
        10,
    ),
    "llama3": (
        Llama3Scaling(8.0, 1.0, 4.0, 1024),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 1024,
        },
        10,
    ),
}


@pytest.mark.parametrize(("scaling", "parameters", "length"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_frequencies_equal_transformers(
    scaling: RopeScaling, parameters: dict[str, Any], length: int, share: float
) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=128,
        num_attention_heads=2,
        head_dim=64,
        max_position_embeddings=64,
        rope_parameters={"rope_theta": 5000.0, "partial_rotary_factor": share, **parameters},
    )
    theirs, amplitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu", seq_len=length)
    ours = Frequencies(int(64 * share), 5000.0, scaling).angles(torch.tensor([1, length - 1]))[0]
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=0)
    assert scaling.amplitude == pytest.approx(amplitude)


@pytest.mark.parametrize(("length", "always_long"), [(512, False), (513, False), (513, True), (9, True)])
@pytest.mark.parametrize("attention_factor", [None, 1.25])
def test_longrope_equals_transformers(length: int, always_long: bool, attention_factor: float | None) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=128,
        num_attention_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        rope_parameters={"rope_theta": 5000.0, "attention_factor": attention_factor}
        | LONGROPE_OF_TRANSFORMERS,
    )
    their_length = 4096 if always_long else length
    theirs, amplitude = ROPE_INIT_FUNCTIONS["longrope"](config, "cpu", seq_len=their_length)
    scaling = replace(LONGROPE, attention_factor=attention_factor, always_long=always_long)
    ours = Frequencies(64, 5000.0, scaling).angles(torch.tensor([1, length - 1]))[0]
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=0)
    assert scaling.amplitude == pytest.approx(amplitude)


def test_longrope_keeps_no_cache_over_which_its_factors_change() -> None:
    scaling = LongRopeScaling((1.0,) * 4, (2.0,) * 4, 4.0, 16)

    def network(scaling: LongRopeScaling) -> Decoder:
        torch.manual_seed(0)
        attention = GroupedQueryAttention(2, position=Rope(scaling=scaling))
        config = DecoderConfig(16, 2, attention=attention, max_sequence_length=64)
        return config.build(20)

    network(scaling).make_cache(1, max_length=16)
    with pytest.raises(ConfigError) as error:
        network(scaling).make_cache(1, max_length=17)
    assert (error.value.option, error.value.value) == ("max_length", 17)
    long = network(replace(scaling, always_long=True)).eval()
    ids, cache = torch.arange(20)[None], long.make_cache(1)
    with torch.no_grad():
        steps = torch.cat([long(part, cache=cache) for part in ids.split(1, dim=1)], dim=1)
        torch.testing.assert_close(steps, long(ids), rtol=1e-4, atol=1e-5)
        # A long text takes the long factors whatever is asked for short ones.
        torch.testing.assert_close(network(scaling).eval()(ids), long(ids))


def test_amplitude_multiplies_cosines_and_sines() -> None:
    positions = torch.arange(9)
    scaled = Rope(scaling=YarnScaling(4.0, 64, attention_factor=2.0)).build(8).tables(positions)
    plain = Rope(scaling=YarnScaling(4.0, 64, attention_factor=1.0)).build(8).tables(positions)
    for ours, table in zip(scaled, plain, strict=True):
        torch.testing.assert_close(ours, 2 * table)


@pytest.mark.parametrize("scaling", [LinearScaling(1.0), DynamicNTKScaling(3.0, 200), YarnScaling(1.0, 64)])
def test_nothing_to_stretch_changes_nothing(scaling: RopeScaling) -> None:
    ours, plain = (Rope(scaling=s).build(16).tables(torch.arange(99)) for s in (scaling, None))
    for table, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(table, expected, rtol=1e-5, atol=1e-5)


def test_scaled_frequencies_survive_casts_and_the_meta_device() -> None:
    rope = Rope(scaling=Llama3Scaling(original_length=32))
    expected = rope.build(16).tables(torch.arange(5))[0]
    assert torch.equal(rope.build(16).bfloat16().tables(torch.arange(5))[0], expected)
    with torch.device("meta"):
        empty = rope.build(16)
    assert torch.equal(empty.to_empty(device="cpu").tables(torch.arange(5))[0], expected)


def test_dynamic_scaling_has_no_cache_beyond_the_original_length() -> None:
    attention = GroupedQueryAttention(2, position=Rope(scaling=DynamicNTKScaling(2.0, 16)))
    network = DecoderConfig(hidden_size=16, num_layers=1, attention=attention).build(20)
    network.make_cache(1, max_length=16)
    with pytest.raises(ConfigError) as error:
        network.make_cache(1, max_length=17)
    assert (error.value.option, error.value.value) == ("max_length", 17)


@pytest.mark.parametrize("scaling", [Llama3Scaling(32.0), LONGROPE])
def test_scaling_survives_json(scaling: RopeScaling) -> None:
    rope = Rope(5e5, 0.5, scaling)
    assert component_from_dict(json.loads(json.dumps(rope.to_dict()))) == rope


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: LinearScaling(0.5), "factor=0.5"),
        (lambda: YarnScaling(float("nan")), "factor=nan"),
        (lambda: YarnScaling(beta_slow=40), "beta_slow=40"),
        (lambda: YarnScaling(attention_factor=0.0), "attention_factor=0"),
        (lambda: YarnScaling(original_length=0), "original_length=0"),
        (lambda: Llama3Scaling(low_frequency_factor=5.0), "low_frequency_factor=5"),
        (lambda: LongRopeScaling(), "long_factors="),
        (lambda: LongRopeScaling((1.0,), (1.0, 2.0)), "has 2 numbers and short_factors 1"),
        (lambda: LongRopeScaling((1.0,), (0.0,)), "long_factors=0"),
        (lambda: LongRopeScaling((1.0,), (1.0,), original_length=1), "original_length=1"),
        (lambda: LongRopeScaling((1.0,), (1.0,), attention_factor=-1.0), "attention_factor=-1"),
        (
            lambda: Rope(scaling=LongRopeScaling((1.0,), (1.0,))).build(8),
            "has 1 numbers, and 4 pairs",
        ),
        (lambda: DynamicNTKScaling(original_length=-1), "original_length=-1"),
        (lambda: Rope(rotated_share=0.0), "rotated_share=0"),
        (lambda: Rope(rotated_share=1.5), "rotated_share=1.5"),
        (lambda: Rope(rotated_share=0.25).build(12), "rotated_share=0.25"),
        (lambda: Rope(rotated_share=0.1).build(8), "rotated_share=0.1"),
    ],
)
def test_mistakes_are_named(build: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build()
