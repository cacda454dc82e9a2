"""FlexAttention against plain matrix products: every mask and change of scores, refusals, and the choice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from insight.models import (
    Alibi,
    Attention,
    BidirectionalMask,
    CausalMask,
    DecoderConfig,
    DifferentialAttention,
    FlexKernel,
    GroupedQueryAttention,
    LatentAttention,
    Mask,
    PositionMask,
    PrefixMask,
    ReferenceKernel,
    ScoreChange,
)
from insight.models.attention.kernels import AutoKernel, Situation
from insight.models.attention.kernels.flex import _block_mask
from insight.models.masks import document_mask
from insight.runtime.errors import ConfigError

LENGTH = 150  # more than a block
DOCUMENTS = torch.tensor([[0] * 90 + [1] * 60, [0] * 20 + [1] * 50 + [2] * 80])
SCATTERED = torch.arange(LENGTH).remainder(3).expand(2, -1)
SHUFFLED = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(3)).unsqueeze(0)
MASKS: dict[str, Mask] = {
    "causal": CausalMask(),
    "window": CausalMask(9),
    "bidirectional": BidirectionalMask(),
    "bidirectional window": BidirectionalMask(9),
    "prefix": PrefixMask(torch.tensor([40, 0])),
    "prefix and window": PrefixMask(torch.tensor([40, 0]), 9),
    "documents": document_mask(DOCUMENTS, CausalMask()),
    "documents and window": document_mask(DOCUMENTS, CausalMask(9)),
    "documents in pieces": document_mask(SCATTERED, CausalMask()),
    "documents in both directions": document_mask(DOCUMENTS, BidirectionalMask()),
    "positions": PositionMask(torch.arange(LENGTH).expand(2, -1), SHUFFLED, CausalMask(30)),
}


def inputs(num_queries: int = LENGTH, device: str = "cpu", dtype: torch.dtype = torch.float64) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, heads, tokens, 16, generator=generator, dtype=torch.float64).to(device, dtype)
        for heads, tokens in ((4, num_queries), (2, LENGTH), (2, LENGTH))
    ]


def changes(device: str = "cpu", dtype: torch.dtype = torch.float64) -> dict[str, ScoreChange]:
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(1, 4, LENGTH, LENGTH, generator=generator, dtype=torch.float64).to(device, dtype)
    rows = torch.randn(2, 4, LENGTH, LENGTH, generator=generator, dtype=torch.float64).to(device, dtype)
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0], device=device, dtype=dtype)
    return {
        "nothing": ScoreChange(),
        "cap": ScoreChange(soft_cap=1.5),
        "bias": ScoreChange(bias),
        "bias a row": ScoreChange(rows),
        "sinks": ScoreChange(sinks=sinks),
        "all": ScoreChange(bias, 1.5, sinks),
    }


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same formula without a compiler's tracing, which takes most of a second each time."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("change", changes().values(), ids=changes().keys())
def test_equals_plain_products(mask: Mask, change: ScoreChange) -> None:
    tensors = inputs()
    ours = FlexKernel()(*tensors, mask, 0.4, change)
    torch.testing.assert_close(ours, ReferenceKernel()(*tensors, mask, 0.4, change), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("mask", "change"),
    [("window", "nothing"), ("documents and window", "all"), ("prefix", "cap"), ("positions", "sinks")],
)
def test_equals_plain_products_as_it_is_called(mask: str, change: str) -> None:
    tensors = inputs(dtype=torch.float32)
    changed = changes(dtype=torch.float32)[change]
    ours = FlexKernel()(*tensors, MASKS[mask], 0.4, changed)
    expected = ReferenceKernel()(*tensors, MASKS[mask], 0.4, changed)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("num_queries", [1, 3])
@pytest.mark.parametrize("mask", [CausalMask(), CausalMask(9)])
def test_fewer_queries_than_keys(mask: Mask, num_queries: int) -> None:
    tensors = inputs(num_queries)
    torch.testing.assert_close(
        FlexKernel()(*tensors, mask, 0.4), ReferenceKernel()(*tensors, mask, 0.4), rtol=1e-9, atol=1e-9
    )


@pytest.mark.usefixtures("untraced")
def test_a_wrong_mask_would_be_noticed() -> None:
    tensors = inputs()
    ours = FlexKernel()(*tensors, CausalMask(9), 0.4)
    assert not torch.allclose(ours, ReferenceKernel()(*tensors, CausalMask(10), 0.4))


@pytest.mark.usefixtures("untraced")
def test_a_row_without_any_key_is_zero() -> None:
    query, key, value = inputs(2)
    positions = torch.full((1, LENGTH), -1)
    positions[0, 1] = 1
    output = FlexKernel()(query, key, value, PositionMask(torch.tensor([[0, 1]]), positions), 0.4)
    assert (output[:, :, 0] == 0).all()
    assert (output[:, :, 1] != 0).any()


def test_blocks_that_a_window_hides_are_skipped() -> None:
    blocks = _block_mask(CausalMask(9), 1024, 1024, torch.device("cpu"))
    assert blocks.sparsity() > 70  # 15 of 64 blocks hold something


def test_a_mask_of_numbers_is_made_once_and_serves_training_after_inference() -> None:
    with torch.inference_mode():
        first = _block_mask(CausalMask(11), 256, 256, torch.device("cpu"))
    assert not first.kv_indices.is_inference()
    assert _block_mask(CausalMask(11), 256, 256, torch.device("cpu")) is first
    assert _block_mask(CausalMask(12), 256, 256, torch.device("cpu")) is not first


def test_gradients_on_a_cpu_are_refused() -> None:
    tensors = [tensor.requires_grad_() for tensor in inputs()]
    with pytest.raises(ConfigError) as error:
        FlexKernel()(*tensors, CausalMask(), 0.4)
    assert (error.value.option, error.value.value) == ("kernel", "flex")
    sinks = ScoreChange(sinks=torch.zeros(4, dtype=torch.float64, requires_grad=True))
    with pytest.raises(ConfigError) as error:
        FlexKernel()(*inputs(), CausalMask(), 0.4, sinks)
    assert (error.value.option, error.value.value) == ("kernel", "flex")


PROJECTIONS: list[Callable[..., Attention]] = [
    functools.partial(GroupedQueryAttention, 4, 2, score_soft_cap=2.0),
    functools.partial(DifferentialAttention, 4, 2, sinks=True),
    functools.partial(LatentAttention, value_dim=8),
]


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("window", [None, 9])
def test_every_projection_takes_it_where_nothing_learns(
    projection: Callable[..., Attention], window: int | None
) -> None:
    outputs = []
    for kernel in ("reference", "flex"):
        torch.manual_seed(0)
        attention = projection(kernel=kernel, window=window)
        network = DecoderConfig(hidden_size=32, num_layers=2, attention=attention).build(30).eval()
        with torch.no_grad():
            outputs.append(network(torch.arange(20).unsqueeze(0)))
    torch.testing.assert_close(*outputs)


CHOICES = [
    (CausalMask(), {}, "sdpa"),
    (CausalMask(64), {}, "flex"),
    (BidirectionalMask(64), {}, "flex"),
    (PrefixMask(torch.tensor([3])), {}, "flex"),
    (document_mask(DOCUMENTS, CausalMask()), {}, "sdpa"),
    (document_mask(DOCUMENTS, CausalMask(9)), {}, "flex"),
    (document_mask(SCATTERED, CausalMask()), {}, "flex"),
    (CausalMask(), {"change": ScoreChange(soft_cap=9.0)}, "flex"),
    (CausalMask(), {"wide_keys": True}, "flex"),
    (CausalMask(64), {"num_queries": 1}, "sdpa"),
    (CausalMask(64), {"device": "cpu"}, "sdpa"),
    (CausalMask(), {"device": "cpu", "change": ScoreChange(soft_cap=9.0)}, "plain products"),
]


@pytest.mark.parametrize(("mask", "facts", "expected"), CHOICES)
def test_auto_takes_it_on_cuda_for_what_fused_kernels_cannot_do(
    mask: Mask, facts: dict[str, Any], expected: str
) -> None:
    kernel = AutoKernel()
    kernel.compiles_flex = True
    situation = Situation(
        **{"device": "cuda", "dtype": torch.bfloat16, "num_queries": 512, "trains": False, "mask": mask}
        | facts
    )
    chosen, reason = kernel.choose(situation)
    assert chosen.name == expected
    assert reason
    assert kernel.describe(situation) == f"{expected}, {reason}"
    kernel.compiles_flex = False
    assert kernel.choose(situation)[0].name != "flex"


def test_layers_say_their_kernel() -> None:
    def described(**options: Any) -> str:
        attention = GroupedQueryAttention(4, **options).build(32, lambda position, *s: position.build(*s))
        attention.kernel.compiles_flex = True  # type: ignore[union-attr, assignment]
        return str(attention.describe_kernel("cuda", torch.bfloat16, 512))

    assert described().startswith("sdpa, ")
    assert described(window=64).startswith("flex, ")
    assert described(position=Alibi()).startswith("flex, ")
    assert described(kernel="tiled") == "tiled, as configured"


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("change", changes())
def test_on_cuda_with_gradients(mask: str, change: str) -> None:
    results = []
    for kernel in (FlexKernel(), ReferenceKernel()):
        tensors = [tensor.requires_grad_() for tensor in inputs(device="cuda", dtype=torch.float32)]
        changed = changes("cuda", torch.float32)[change]
        output = kernel(*tensors, _on_cuda(MASKS[mask]), 0.4, changed)
        output.square().sum().backward()
        results.append([output.detach(), *(tensor.grad for tensor in tensors)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=2e-2, atol=2e-2)


def _on_cuda(mask: Mask) -> Mask:
    if isinstance(mask, PositionMask):
        return PositionMask(mask.query_positions.cuda(), mask.key_positions.cuda(), mask.inside)
    if isinstance(mask, PrefixMask):
        return PrefixMask(mask.lengths.cuda(), mask.window)
    if hasattr(mask, "document_ids"):
        return document_mask(mask.document_ids.cuda(), mask.inside)  # type: ignore[attr-defined]
    return mask
