"""Every configuration through YAML, as the command line reads it, and back."""

from __future__ import annotations

from dataclasses import replace

import jsonargparse
import pytest
import yaml

from insight.models import (
    PRESETS,
    Alibi,
    BalanceBias,
    DecoderConfig,
    DifferentialAttention,
    DynamicNTKScaling,
    EncoderConfig,
    EncoderDecoderConfig,
    FeedForwardPattern,
    FullWidthNorm,
    GroupedQueryAttention,
    HeadNorm,
    InterleavedRope,
    LatentAttention,
    LayerNorm,
    LinearScaling,
    LongRopeScaling,
    MeanPooling,
    MixtureOfExperts,
    ParallelResidual,
    PostNorm,
    RelativeBias,
    Rope,
    SinusoidalPosition,
    SwiGLU,
    YarnScaling,
)

CONFIGS = {name: preset.config for name, preset in PRESETS.items()} | {
    "rotary": DecoderConfig(
        attention=GroupedQueryAttention(
            position=InterleavedRope(500.0, 0.5, YarnScaling(2.0, truncate=False))
        )
    ),
    "scaled": DecoderConfig(attention=GroupedQueryAttention(position=Rope(scaling=LinearScaling(2.0)))),
    "dynamic": DecoderConfig(attention=GroupedQueryAttention(position=Rope(scaling=DynamicNTKScaling(2.0)))),
    "biases": DecoderConfig(
        attention=GroupedQueryAttention(position=RelativeBias(16, 64), qk_norm="rms", sinks=True)
    ),
    "norms": DecoderConfig(
        attention=GroupedQueryAttention(position=Alibi(), qk_norm=FullWidthNorm(LayerNorm(bias=False))),
        block=PostNorm(),
        input_position=SinusoidalPosition(100.0),
    ),
    "differential": DecoderConfig(attention=DifferentialAttention(4, 2, qk_norm=HeadNorm(), window=9)),
    "experts": DecoderConfig(
        feed_forward=FeedForwardPattern(
            (
                MixtureOfExperts(
                    8, 3, score="sigmoid", num_groups=4, num_groups_per_token=2, balance=BalanceBias(0.01)
                ),
            ),
            first=(SwiGLU(48),),
        )
    ),
    "no balance": DecoderConfig(feed_forward=MixtureOfExperts(balance=None)),
    "longrope": DecoderConfig(
        attention=GroupedQueryAttention(position=Rope(scaling=LongRopeScaling((1.0,) * 32, (2.0,) * 32)))
    ),
    "encoder": EncoderConfig(pooling=MeanPooling()),
    "encoder and decoder": EncoderDecoderConfig(EncoderConfig(64), DecoderConfig(32)),
    "latent": DecoderConfig(
        attention=LatentAttention(4, 32, 24, position=Rope()), block=ParallelResidual(True)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_yaml_gives_the_same_configuration(config: DecoderConfig | EncoderDecoderConfig) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=type(config))
    written = yaml.safe_load(yaml.safe_dump({"network": config.to_dict()["init_args"]}))
    assert parser.instantiate(parser.parse_object(written)).network == config


def test_dotted_overrides_reach_into_a_scaling() -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=DecoderConfig)
    parsed = parser.parse_args(
        [
            "--network.attention=GroupedQueryAttention",
            "--network.attention.position=Rope",
            "--network.attention.position.scaling=YarnScaling",
            "--network.attention.position.scaling.factor=2",
            "--network.attention.window=7",
        ]
    )
    attention = GroupedQueryAttention(position=Rope(scaling=YarnScaling(2.0)), window=7)
    assert parser.instantiate(parsed).network == replace(DecoderConfig(), attention=attention)
