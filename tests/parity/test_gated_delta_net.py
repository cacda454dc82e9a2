"""The gated delta net beside that of Qwen 3 Next in transformers: its kernels and the whole layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from insight.models import CallContext, GatedDeltaNet, Position, PositionEncoding
from insight.models.attention.linear import Recurrence, mix_chunks, mix_token
from insight.models.caches import CacheShape
from insight.models.masks import CausalMask

transformers = pytest.importorskip("transformers")

HIDDEN, KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, LENGTH = 48, 2, 4, 8, 12, 75


def build_position(position: Position, head_dim: int, num_heads: int) -> PositionEncoding:
    return position.build(head_dim, num_heads)


def theirs_and_ours() -> tuple[Any, Any]:
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = transformers.Qwen3NextConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        linear_num_key_heads=KEY_HEADS,
        linear_num_value_heads=VALUE_HEADS,
        linear_key_head_dim=KEY_DIM,
        linear_value_head_dim=VALUE_DIM,
        linear_conv_kernel_dim=4,
        rms_norm_eps=1e-6,
    )
    theirs = Qwen3NextGatedDeltaNet(config, 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    ours: Any = GatedDeltaNet(VALUE_HEADS, KEY_DIM, VALUE_DIM, num_key_heads=KEY_HEADS).build(
        HIDDEN, build_position
    )
    per_key_head = VALUE_HEADS // KEY_HEADS
    widths = [KEY_DIM, KEY_DIM, per_key_head * VALUE_DIM, per_key_head * VALUE_DIM]
    packed = theirs.in_proj_qkvz.weight.view(KEY_HEADS, sum(widths), HIDDEN).split(widths, dim=1)
    query, key, value, gate = (part.flatten(0, 1) for part in packed)
    packed = theirs.in_proj_ba.weight.view(KEY_HEADS, 2 * per_key_head, HIDDEN).chunk(2, dim=1)
    ours.load_state_dict(
        {
            "query_key_value.weight": torch.cat([query, key, value]),
            "gate.weight": gate,
            "strength_step.weight": torch.cat([part.flatten(0, 1) for part in packed]),
            "convolution.weight": theirs.conv1d.weight.squeeze(1),
            "log_rate": theirs.A_log,
            "step_bias": theirs.dt_bias,
            "norm.weight": theirs.norm.weight,
            "output.weight": theirs.out_proj.weight,
        }
    )
    return theirs.eval(), ours.eval()


def test_the_layer_with_gradients() -> None:
    theirs, ours = theirs_and_ours()
    results = []
    for call in (theirs, lambda hidden: ours(hidden, CallContext(CausalMask()))):
        hidden = torch.randn(2, LENGTH, HIDDEN, generator=torch.Generator().manual_seed(1)).requires_grad_()
        output = call(hidden)
        output.square().mean().backward()
        results.append((output.detach(), hidden.grad))
    for result, expected in zip(*results, strict=True):
        assert result is not None
        assert (result - expected).abs().max() <= 1e-5
    pairs = [
        (ours.convolution.weight, theirs.conv1d.weight.grad.squeeze(1)),
        (ours.log_rate, theirs.A_log.grad),
        (ours.step_bias, theirs.dt_bias.grad),
        (ours.norm.weight, theirs.norm.weight.grad),
        (ours.output.weight, theirs.out_proj.weight.grad),
    ]
    for parameter, expected in pairs:
        assert (parameter.grad - expected).abs().max() <= 1e-5


def test_decoding_token_by_token_equals_their_whole_pass() -> None:
    theirs, ours = theirs_and_ours()
    hidden = torch.randn(2, LENGTH, HIDDEN, generator=torch.Generator().manual_seed(1))
    cache = ours.make_cache(CacheShape(2, LENGTH, torch.float32, hidden.device))
    with torch.no_grad():
        expected = theirs(hidden)
        parts = [
            ours(part, CallContext(CausalMask(), cache=cache))
            for part in hidden.split([9, *[1] * 20, LENGTH - 29], dim=1)
        ]
    assert (torch.cat(parts, dim=1) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("kernel", ["torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"])
def test_their_kernels(kernel: str) -> None:
    from transformers.models.qwen3_next import modeling_qwen3_next

    generator = torch.Generator().manual_seed(2)
    query, key = torch.randn(2, 2, LENGTH, 3, KEY_DIM, generator=generator)
    value = torch.randn(2, LENGTH, 3, VALUE_DIM, generator=generator)
    strength = torch.rand(2, LENGTH, 3, generator=generator)
    log_decay = -torch.rand(2, LENGTH, 3, generator=generator)
    state = torch.randn(2, 3, KEY_DIM, VALUE_DIM, generator=generator)
    expected, expected_state = getattr(modeling_qwen3_next, kernel)(
        query,
        key,
        value,
        g=log_decay,
        beta=strength,
        initial_state=state,
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    inputs = Recurrence(
        F.normalize(query, dim=-1) * KEY_DIM**-0.5,
        F.normalize(key, dim=-1),
        value,
        log_decay.unsqueeze(-1),
        strength.unsqueeze(-1),
    ).map(lambda tensor: tensor.transpose(1, 2))
    output, last = mix_chunks(inputs, state)
    assert (output.transpose(1, 2) - expected).abs().max() <= 1e-5
    assert (last - expected_state).abs().max() <= 1e-5
    outputs = []
    for index in range(LENGTH):
        output, state = mix_token(inputs.tokens(index, index + 1), state)
        outputs.append(output)
    assert (torch.cat(outputs, dim=2).transpose(1, 2) - expected).abs().max() <= 1e-5
    assert (state - expected_state).abs().max() <= 1e-5
