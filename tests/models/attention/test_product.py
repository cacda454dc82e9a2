"""Every position with every mask and kernel: one answer, with gradients, whichever way it is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken
from torch.nn.attention import flex_attention as torch_flex

from insight.models import (
    Alibi,
    Decoder,
    DecoderConfig,
    GroupedQueryAttention,
    InterleavedRope,
    NoPosition,
    Position,
    RelativeBias,
    Rope,
    YarnScaling,
)

LENGTH = 70  # more than a block of a window

POSITIONS: dict[str, Position] = {
    "rope": Rope(),
    "yarn, partial": Rope(rotated_share=0.5, scaling=YarnScaling(4.0, 32)),
    "interleaved": InterleavedRope(),
    "alibi": Alibi(),
    "bias": RelativeBias(8, 30),
    "none": NoPosition(),
}
DOCUMENTS = torch.tensor([[0] * 30 + [1] * 40, [5] * 69 + [7]])
SCATTERED = torch.arange(LENGTH).remainder(3).expand(2, -1)
MASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "causal": ({}, {}),
    "window": ({"window": 9}, {}),
    "documents": ({}, {"document_ids": DOCUMENTS}),
    "documents in pieces": ({}, {"document_ids": SCATTERED}),
    "documents and window": ({"window": 9}, {"document_ids": DOCUMENTS}),
    "sinks": ({"sinks": True}, {}),
    "sinks, documents and window": ({"sinks": True, "window": 9}, {"document_ids": DOCUMENTS}),
    "sinks and prefix": ({"sinks": True}, {"prefix_lengths": torch.tensor([11, 0])}),
    "cap": ({"score_soft_cap": 2.0}, {}),
    "cap, documents and window": ({"score_soft_cap": 2.0, "window": 9}, {"document_ids": DOCUMENTS}),
    "cap and sinks": ({"score_soft_cap": 2.0, "sinks": True}, {}),
    "prefix": ({}, {"prefix_lengths": torch.tensor([11, 0])}),
    "prefix and window": ({"window": 9}, {"prefix_lengths": torch.tensor([11, 0])}),
}


def decoder(heads: tuple[int, int], position: Position, kernel: str, options: dict[str, Any]) -> Decoder:
    attention = GroupedQueryAttention(*heads, head_dim=8, position=position, kernel=kernel, **options)  # type: ignore[arg-type]
    config = DecoderConfig(hidden_size=16, num_layers=1, attention=attention)
    network: Decoder = build_shaken(config, 30, noise=0.2)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS.keys())
@pytest.mark.parametrize(("options", "arguments"), MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("heads", [(4, 2), (3, 1)])
def test_kernels_agree(
    position: Position,
    options: dict[str, Any],
    arguments: dict[str, Any],
    heads: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = torch.randint(0, 30, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    results = []
    capped = "score_soft_cap" in options
    if capped and isinstance(position, Alibi):
        pytest.skip("refused when built")
    for kernel in ("reference", "auto") if capped else ("reference", "sdpa", "tiled", "auto"):
        network = decoder(heads, position, kernel, options)
        output = network(ids, **arguments)
        output.square().mean().backward()
        results.append([output.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    for ours in results[1:]:
        for result, expected in zip(ours, results[0], strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-10)
    # Flex has no gradient on a CPU; without its tracing, which takes most of a second each time.
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    with torch.no_grad():
        output = decoder(heads, position, "flex", options)(ids, **arguments)
    torch.testing.assert_close(output, results[0][0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS.keys())
@pytest.mark.parametrize("window", [None, 9])
def test_the_future_never_reaches_the_past(position: Position, window: int | None) -> None:
    network = decoder((4, 2), position, "auto", {"window": window})
    ids = torch.randint(0, 30, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    before = network(ids)
    ids[:, 40:] = (ids[:, 40:] + 1) % 30
    after = network(ids)
    torch.testing.assert_close(after[:, :40], before[:, :40], rtol=1e-12, atol=1e-12)
    assert not torch.isclose(after[:, 40:], before[:, 40:]).all(dim=-1).any()
