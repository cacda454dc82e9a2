"""Which attention kernels a run says that it takes."""

from __future__ import annotations

import pytest
from torch import nn

from insight.callbacks.run_record import kernels_of
from insight.models import DecoderConfig, GroupedQueryAttention, LatentAttention, LayerPattern


def network() -> nn.Module:
    attention = LayerPattern(
        (GroupedQueryAttention(4), GroupedQueryAttention(4, kernel="reference"), LatentAttention())
    )
    return DecoderConfig(hidden_size=32, num_layers=4, attention=attention).build(20)


@pytest.fixture(params=[True, False], ids=["bfloat16 products", "none"])
def fast_bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("insight.models.attention.kernels.auto._multiplies_bfloat16", lambda: request.param)
    return bool(request.param)


def test_each_kernel_once_with_its_layers(fast_bfloat16: bool) -> None:
    lines = kernels_of(network(), "cpu", "bf16-mixed", 256)
    assert sorted(line.partition(",")[0] for line in lines) == [
        "reference",
        "tiled" if fast_bfloat16 else "sdpa",
    ]
    assert any(line == "reference, as configured (1 layer)" for line in lines)
    assert sum(line.endswith("(3 layers)") for line in lines) == 1


@pytest.mark.usefixtures("fast_bfloat16")
@pytest.mark.parametrize(
    ("precision", "num_tokens"), [("32-true", 256), ("16-mixed", 256), ("bf16-true", 4096)]
)
def test_what_tiles_are_no_use_for(precision: str, num_tokens: int) -> None:
    assert not any(line.startswith("tiled") for line in kernels_of(network(), "cpu", precision, num_tokens))


def test_a_network_without_attention_has_nothing_to_say() -> None:
    assert kernels_of(nn.Linear(2, 2), "cpu", "32-true", 8) == []
