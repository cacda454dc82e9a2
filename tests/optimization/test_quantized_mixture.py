"""What quantization does with a mixture of experts, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import calibration, scores, some_ids, untrained

from insight.checkpoints.artifact import load_artifact
from insight.models import BalanceBias, MixtureOfExperts
from insight.optimization import METHODS, QuantizationConfig, Quantizer, save_artifact

MIXTURE = MixtureOfExperts(4, 2, intermediate_size=24, num_shared_experts=1, balance=BalanceBias())
PREFIX = "blocks.0.feed_forward."


@pytest.mark.parametrize("method", METHODS)
def test_experts_and_routers_are_kept_with_the_reason(method: str, tmp_path: Path) -> None:
    model = untrained(feed_forward=MIXTURE)
    bias = torch.tensor([0.001, -0.002, 0.0, 0.003])
    model.network.blocks[0].feed_forward.router.choice_bias.copy_(bias)  # type: ignore[union-attr, operator]
    optimized = Quantizer(QuantizationConfig(method)).apply(model, calibration(model.tokenizer))
    kept = {one.name: one.reason for one in optimized.report.modules_kept}
    if method != "bf16":
        assert "choose others" in kept[f"{PREFIX}router.projection"]
        assert "experts stacked" in kept[f"{PREFIX}expert_gate_up"]
        assert "experts stacked" in kept[f"{PREFIX}expert_down"]
    assert f"{PREFIX}shared.down" in optimized.report.modules_quantized
    before = scores(model, some_ids())
    assert (scores(optimized.checkpoint, some_ids()).float() - before).norm() < 0.1 * before.norm()
    router = optimized.checkpoint.network.blocks[0].feed_forward.router  # type: ignore[union-attr]
    assert torch.equal(router.choice_bias, bias)  # type: ignore[union-attr, arg-type]
    save_artifact(optimized, tmp_path / "small")
    loaded = load_artifact(tmp_path / "small")
    assert torch.equal(scores(loaded, some_ids()), scores(optimized.checkpoint, some_ids()))
