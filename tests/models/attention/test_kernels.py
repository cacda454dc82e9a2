"""Kernels against plain matrix products in float64: values, gradients, groups, precision."""

from __future__ import annotations

import pytest
import torch

from insight.models import (
    BidirectionalMask,
    CausalMask,
    Kernel,
    Mask,
    ReferenceKernel,
    SDPAKernel,
    TiledKernel,
)
from insight.models.attention.kernels import AutoKernel, ScoreChange, make_kernel
from insight.models.attention.kernels.base import PLAIN
from insight.models.attention.kernels.fused import _MOST_KEYS, _tiled_attention, _tiles
from insight.models.masks import padding_mask

KERNELS = {"sdpa": SDPAKernel(), "tiled": TiledKernel(), "auto": AutoKernel()}


def inputs(
    length: int,
    num_heads: int,
    num_key_heads: int,
    dtype: torch.dtype = torch.float64,
    keys: int | None = None,
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(num_heads, length), (num_key_heads, keys or length), (num_key_heads, keys or length)]
    # Tokens before heads in memory, as projections make them.
    return [
        torch.randn(2, tokens, heads, 8, generator=generator, dtype=torch.float64)
        .to(dtype)
        .transpose(1, 2)
        .detach()
        .requires_grad_()
        for heads, tokens in shapes
    ]


def run(
    kernel: Kernel, tensors: list[torch.Tensor], mask: Mask = CausalMask(), change: ScoreChange = PLAIN
) -> list[torch.Tensor]:
    output = kernel(*tensors, mask, 0.4, change)
    weights = torch.linspace(-1, 1, 8, dtype=output.dtype)
    (output * weights).square().sum().backward()
    return [output.detach(), *(tensor.grad for tensor in tensors if tensor.grad is not None)]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
@pytest.mark.parametrize(("num_heads", "num_key_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("length", [1, 5, 128, 130, 200])  # one tile, a full one, a ragged last one
def test_values_and_gradients(kernel: Kernel, num_heads: int, num_key_heads: int, length: int) -> None:
    ours = run(kernel, inputs(length, num_heads, num_key_heads))
    expected = run(ReferenceKernel(), inputs(length, num_heads, num_key_heads))
    assert len(ours) == 4
    for result, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(result, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
@pytest.mark.parametrize("num_queries", [1, 3])
def test_fewer_queries_than_keys(kernel: Kernel, num_queries: int) -> None:
    query, key, value = inputs(num_queries, 4, 2, keys=9)
    whole = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    whole[:, :, -num_queries:] = query.detach()
    expected = ReferenceKernel()(whole, key, value, CausalMask(), 0.4)[:, :, -num_queries:]
    torch.testing.assert_close(kernel(query, key, value, CausalMask(), 0.4), expected)


def test_top_left_alignment_would_be_noticed() -> None:
    query, key, value = (x.detach() for x in inputs(3, 4, 4, keys=9))
    aligned = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.4)
    assert not torch.allclose(SDPAKernel()(query, key, value, CausalMask(), 0.4), aligned)


def test_tiled_gradient_by_finite_differences() -> None:
    tensors = tuple(x[..., :3].detach().requires_grad_() for x in inputs(5, 4, 2))
    assert torch.autograd.gradcheck(lambda q, k, v: TiledKernel()(q, k, v, CausalMask(), 0.4), tensors)


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("hides", [True, False], ids=["padding", "no padding"])
@pytest.mark.parametrize(("num_heads", "num_key_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize(("length", "keys"), [(7, 7), (1, 5), (140, 9), (6, 140)])
def test_tiles_without_a_triangle_hide_padding(
    num_heads: int, num_key_heads: int, length: int, keys: int, hides: bool, biased: bool
) -> None:
    tokens = torch.ones(2, keys, dtype=torch.bool)
    tokens[0, -3:] = tokens[1, :2] = False  # on either side
    mask: Mask = padding_mask(tokens if hides else None)
    bias = torch.randn(1, num_heads, length, keys, dtype=torch.float64) if biased else None
    ours, fused, expected = (
        run(kernel, inputs(length, num_heads, num_key_heads, keys=keys), mask, ScoreChange(bias))
        for kernel in (TiledKernel(), SDPAKernel(), ReferenceKernel())
    )
    for result, other, reference in zip(ours, fused, expected, strict=True):
        torch.testing.assert_close(result, reference, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(other, reference, rtol=1e-9, atol=1e-9)
    for gradient in ours[2:]:
        assert bool((gradient.transpose(1, 2)[~tokens] == 0).all()) == hides


def test_tiles_compute_what_hides_keys_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fused: list[str] = []
    monkeypatch.setattr(
        SDPAKernel, "attend", lambda self, query, key, value, **options: fused.append("") or query
    )
    bias = torch.randn(1, 4, 9, 9)
    for mask, keys, change, is_fused in (
        (BidirectionalMask(), 9, PLAIN, False),
        (padding_mask(torch.arange(9).expand(2, 9) < 7), 9, PLAIN, False),
        (BidirectionalMask(), _MOST_KEYS + 1, PLAIN, True),  # whole squares of weights would be kept
        (BidirectionalMask(window=1), 9, PLAIN, True),
        (BidirectionalMask(), 9, ScoreChange(bias), False),
        (BidirectionalMask(), 9, ScoreChange(bias.clone().requires_grad_()), True),  # its gradient is needed
    ):
        fused.clear()
        TiledKernel()(*inputs(9, 4, 2, keys=keys), mask, 0.4, change)
        assert bool(fused) == is_fused


def test_tiles_cover_every_query_once() -> None:
    for length in (1, 64, 128, 129, 200, 1024):
        for is_causal in (True, False):
            tiles = _tiles(length, length, is_causal)
            assert [query for start, stop, _ in tiles for query in range(start, stop)] == list(range(length))


@pytest.mark.slow
def test_tiled_operator_keeps_the_rules_of_torch() -> None:
    for length in (6, 150):
        query, key, value = inputs(length, 4, 2, torch.float32)
        torch.library.opcheck(_tiled_attention, (query, key, value, None, True, 0.4))
    query, key, value = inputs(6, 4, 2, torch.float32, keys=9)
    for rows in (1, 12):  # two heads to a key head
        added = torch.randn(4, rows, 9)
        torch.library.opcheck(_tiled_attention, (query, key, value, added, False, 0.4))


def test_reference_weights_are_a_causal_distribution() -> None:
    query, key, _ = inputs(7, 4, 2)
    weights = ReferenceKernel().weights(query, key, CausalMask(), 0.4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7, dtype=torch.float64))
    assert (weights.triu(1) == 0).all()


@pytest.mark.parametrize("kernel", [SDPAKernel(), TiledKernel()], ids=["sdpa", "tiled"])
def test_bfloat16_stays_near_float64(kernel: Kernel) -> None:
    exact = run(
        ReferenceKernel(), [x.detach().double().requires_grad_() for x in inputs(150, 4, 2, torch.bfloat16)]
    )
    ours = run(kernel, inputs(150, 4, 2, torch.bfloat16))
    for result, reference in zip(ours, exact, strict=True):
        assert result.dtype == torch.bfloat16
        assert (result.double() - reference).norm() < 0.02 * reference.norm()


@pytest.mark.parametrize("kernel", ["auto", "sdpa", "tiled", "reference"])
def test_past_outputs_do_not_depend_on_future_tokens(kernel: str) -> None:
    tensors = inputs(150, 4, 2)
    output = make_kernel(kernel)(*tensors, CausalMask(), 0.4)
    output[:, :, :70].square().sum().backward()
    query, key, value = (tensor.grad for tensor in tensors)
    for gradient in (query, key, value):
        assert gradient is not None
        assert (gradient[:, :, 70:] == 0).all()
        assert (gradient[:, :, :70] != 0).any()


def test_auto_takes_tiles_for_training_on_short_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = AutoKernel()
    chosen: list[str] = []
    monkeypatch.setattr(kernel, "sdpa", lambda *_, **__: chosen.append("sdpa"))
    monkeypatch.setattr(kernel, "tiled", lambda *_, **__: chosen.append("tiled"))
    monkeypatch.setattr(kernel, "fast_bfloat16", True)
    for dtype, length, grad in (
        (torch.bfloat16, 64, True),
        (torch.bfloat16, 64, False),
        (torch.bfloat16, 2048, True),
        (torch.float32, 64, True),
    ):
        tensors = [torch.zeros(1, 1, length, 2, dtype=dtype, requires_grad=grad) for _ in range(3)]
        kernel(*tensors, CausalMask(), 1.0)
    monkeypatch.setattr(kernel, "fast_bfloat16", False)
    tensors = [torch.zeros(1, 1, 64, 2, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    kernel(*tensors, CausalMask(), 1.0)
    assert chosen == ["tiled", "sdpa", "sdpa", "sdpa", "sdpa"]
