"""Quantization of attentions with matrices of their own kind: linear mixers, and latent attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import calibration, scores, some_ids, untrained

from insight.checkpoints.artifact import load_artifact
from insight.models import GatedDeltaNet, GroupedQueryAttention, LatentAttention, LayerPattern
from insight.optimization import METHODS, QuantizationConfig, Quantizer, save_artifact

HYBRID = LayerPattern((GatedDeltaNet(4), GroupedQueryAttention(4, 2)))
PREFIX = "blocks.0.attention."


@pytest.mark.parametrize("method", METHODS)
def test_a_hybrid_by_every_method(method: str, tmp_path: Path) -> None:
    model = untrained(attention=HYBRID)
    optimized = Quantizer(QuantizationConfig(method)).apply(model, calibration(model.tokenizer))
    for name in ("query_key_value", "gate", "strength_step", "output"):
        assert f"{PREFIX}{name}" in optimized.report.modules_quantized
    kept = {one.name for one in optimized.report.modules_kept}
    if method != "bf16":
        assert f"{PREFIX}convolution" in kept
    before = scores(model, some_ids())
    assert (scores(optimized.checkpoint, some_ids()).float() - before).norm() < 0.1 * before.norm()
    network = optimized.checkpoint.network
    cache = network.make_cache(len(some_ids()))
    with torch.no_grad():
        steps = [network(part, cache=cache) for part in some_ids().split(1, dim=1)]
        whole = network(some_ids())
    assert (torch.cat(steps, dim=1) - whole).float().norm() < 0.05 * whole.float().norm()
    save_artifact(optimized, tmp_path / "small")
    loaded = load_artifact(tmp_path / "small")
    assert torch.equal(scores(loaded, some_ids()), scores(optimized.checkpoint, some_ids()))


@pytest.mark.parametrize("method", METHODS)
def test_latent_attention_generates_as_it_reads(method: str) -> None:
    """With a cache it multiplies by parts of one matrix, which therefore stays plain."""
    model = untrained(attention=LatentAttention(4, latent_size=16, head_dim=8, rotary_dim=4, value_dim=8))
    optimized = Quantizer(QuantizationConfig(method)).apply(model, calibration(model.tokenizer))
    kept = {one.name for one in optimized.report.modules_kept}
    assert (f"{PREFIX}key_value" in kept) == (method != "bf16")
    assert f"{PREFIX}output" in optimized.report.modules_quantized
    network = optimized.checkpoint.network
    cache = network.make_cache(len(some_ids()))
    with torch.no_grad():
        steps = [network(part, cache=cache) for part in some_ids().split(1, dim=1)]
        whole = network(some_ids())
    assert (torch.cat(steps, dim=1) - whole).float().norm() < 0.05 * whole.float().norm()
