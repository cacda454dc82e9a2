"""Attention layers of networks that we do not build whole: gpt-oss, Qwen 3 Next, DeepSeek-V3."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from insight.models import (
    CallContext,
    GroupedQueryAttention,
    HeadNorm,
    InterleavedRope,
    LatentAttention,
    OffsetRMSNorm,
    Position,
    PositionEncoding,
    Rope,
    YarnScaling,
)
from insight.models.attention import AttentionModule
from insight.models.masks import CausalMask, Mask

transformers = pytest.importorskip("transformers")

HIDDEN, HEADS, KEY_HEADS, HEAD_DIM, LENGTH = 48, 4, 2, 16, 21


def build_position(position: Position, head_dim: int, num_heads: int) -> PositionEncoding:
    return position.build(head_dim, num_heads)


def randomized(module: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return module.eval()


def inputs() -> torch.Tensor:
    return torch.randn(2, LENGTH, HIDDEN, generator=torch.Generator().manual_seed(1))


def outputs(theirs: Any, rotary: Any, ours: AttentionModule, mask: Mask) -> tuple[torch.Tensor, torch.Tensor]:
    positions = torch.arange(LENGTH)
    hidden = inputs()
    hidden_mask = torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(
        ~mask.allowed(LENGTH, LENGTH, hidden.device), torch.finfo(torch.float32).min
    )
    with torch.no_grad():
        expected, _ = theirs(hidden, rotary(hidden, positions[None]), hidden_mask)
        result = ours(hidden, CallContext(CausalMask(), ours.position.tables(positions)))
    return result, expected


@pytest.mark.parametrize("window", [None, 5])
def test_sinks_of_gpt_oss(window: int | None) -> None:
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention, GptOssRotaryEmbedding

    config = transformers.GptOssConfig(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=HEAD_DIM,
        num_hidden_layers=2,
        attention_bias=True,
        attn_implementation="eager",
    )
    theirs = randomized(GptOssAttention(config, 0))
    rope = Rope(config.rope_parameters["rope_theta"], scaling=YarnScaling(32.0, 4096, truncate=False))
    ours: Any = GroupedQueryAttention(
        HEADS,
        KEY_HEADS,
        HEAD_DIM,
        position=rope,
        window=window,
        qkv_bias=True,
        output_bias=True,
        sinks=True,
    ).build(HIDDEN, build_position)
    parts = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    ours.load_state_dict(
        {
            "query_key_value.weight": torch.cat([part.weight for part in parts]),
            "query_key_value.bias": torch.cat([part.bias for part in parts]),
            "output.weight": theirs.o_proj.weight,
            "output.bias": theirs.o_proj.bias,
            "sinks": theirs.sinks,
        }
    )
    result, expected = outputs(theirs, GptOssRotaryEmbedding(config), ours, CausalMask(window))
    assert (result - expected).abs().max() <= 1e-5


def test_gate_of_qwen3_next() -> None:
    from transformers.models.qwen3_next.modeling_qwen3_next import (
        Qwen3NextAttention,
        Qwen3NextRotaryEmbedding,
    )

    config = transformers.Qwen3NextConfig(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=HEAD_DIM,
        num_hidden_layers=2,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.25},
        attn_implementation="eager",
    )
    theirs = randomized(Qwen3NextAttention(config, 0))
    ours: Any = GroupedQueryAttention(
        HEADS,
        KEY_HEADS,
        HEAD_DIM,
        position=Rope(5000.0, rotated_share=0.25),
        qk_norm=HeadNorm(OffsetRMSNorm(config.rms_norm_eps)),
        output_gate=True,
    ).build(HIDDEN, build_position)
    query, gate = theirs.q_proj.weight.view(HEADS, 2, HEAD_DIM, HIDDEN).unbind(1)
    ours.load_state_dict(
        {
            "query_key_value.weight": torch.cat(
                [query.flatten(0, 1), theirs.k_proj.weight, theirs.v_proj.weight]
            ),
            "gate.weight": gate.flatten(0, 1),
            "query_norm.weight": theirs.q_norm.weight,
            "key_norm.weight": theirs.k_norm.weight,
            "output.weight": theirs.o_proj.weight,
        }
    )
    result, expected = outputs(theirs, Qwen3NextRotaryEmbedding(config), ours, CausalMask())
    assert (result - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("query_latent_size", [None, 20])
def test_latent_attention_of_deepseek(query_latent_size: int | None) -> None:
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
        DeepseekV3Attention,
        DeepseekV3RotaryEmbedding,
    )

    nope, rotary, value, latent = 12, 8, 10, 24
    config = transformers.DeepseekV3Config(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        num_hidden_layers=2,
        kv_lora_rank=latent,
        q_lora_rank=query_latent_size,
        qk_rope_head_dim=rotary,
        qk_nope_head_dim=nope,
        v_head_dim=value,
        max_position_embeddings=256,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 32,
            "beta_slow": 1,
        },
        attn_implementation="eager",
    )
    theirs = randomized(DeepseekV3Attention(config, 0))
    scaling = YarnScaling(4.0, 64, attention_factor=1.0)  # the ratio of both mscales
    mscale = YarnScaling(4.0, 64).amplitude
    ours: Any = LatentAttention(
        HEADS,
        latent,
        query_latent_size,
        nope,
        rotary,
        value,
        position=InterleavedRope(scaling=scaling),
        score_scale=(nope + rotary) ** -0.5 * mscale**2,
    ).build(HIDDEN, build_position)
    keys, values = theirs.kv_b_proj.weight.view(HEADS, nope + value, latent).split([nope, value], dim=1)
    weights = {
        "latent.weight": theirs.kv_a_proj_with_mqa.weight,
        "latent_norm.weight": theirs.kv_a_layernorm.weight,
        "key_value.weight": torch.cat([keys.flatten(0, 1), values.flatten(0, 1)]),
        "output.weight": theirs.o_proj.weight,
    }
    if query_latent_size is None:
        weights |= {"query.weight": theirs.q_proj.weight}
    else:
        weights |= {
            "query_latent.weight": theirs.q_a_proj.weight,
            "query_latent_norm.weight": theirs.q_a_layernorm.weight,
            "query.weight": theirs.q_b_proj.weight,
        }
    ours.load_state_dict(weights)
    result, expected = outputs(theirs, DeepseekV3RotaryEmbedding(config), ours, CausalMask())
    assert (result - expected).abs().max() <= 1e-5
