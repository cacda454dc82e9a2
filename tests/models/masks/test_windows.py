"""Sliding windows, prefixes and both directions: by brute force, at their edges, and in blocks."""

from __future__ import annotations

import pytest
import torch

from insight.models import (
    BidirectionalMask,
    CausalMask,
    DocumentMask,
    Kernel,
    Mask,
    PositionMask,
    PrefixMask,
    ReferenceKernel,
    SDPAKernel,
    TiledKernel,
)
from insight.models.masks import attend_in_blocks, document_mask


def tensors(length: int, keys: int | None = None, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, heads, tokens, 8, generator=generator, dtype=torch.float64).requires_grad_()
        for heads, tokens in ((4, length), (2, keys or length), (2, keys or length))
    ]


def sees(mask: Mask, num_queries: int, num_keys: int, query: int, key: int, row: int = 0) -> bool:
    allowed = mask.allowed(num_queries, num_keys, torch.device("cpu"))
    return bool(allowed[min(row, allowed.shape[0] - 1), 0, query, key])


@pytest.mark.parametrize(("num_queries", "num_keys"), [(7, 7), (1, 7), (3, 7)])
@pytest.mark.parametrize("window", [1, 3, 7, 100])
def test_windows_by_brute_force(num_queries: int, num_keys: int, window: int) -> None:
    for query in range(num_queries):
        for key in range(num_keys):
            distance = num_keys - num_queries + query - key
            causal, both = CausalMask(window), BidirectionalMask(window)
            assert sees(causal, num_queries, num_keys, query, key) == (0 <= distance < window)
            assert sees(both, num_queries, num_keys, query, key) == (abs(distance) <= window)


def test_prefix_edge() -> None:
    mask = PrefixMask(torch.tensor([3, 0]))
    assert sees(mask, 6, 6, 0, 2)
    assert not sees(mask, 6, 6, 0, 3)
    assert sees(mask, 6, 6, 4, 4)
    assert not sees(mask, 6, 6, 4, 5)
    assert not sees(mask, 6, 6, 0, 1, row=1)
    windowed = mask.within(2)
    assert sees(windowed, 6, 6, 0, 1)
    assert not sees(windowed, 6, 6, 0, 2)


@pytest.mark.parametrize("kernel", [SDPAKernel(), TiledKernel()], ids=["sdpa", "tiled"])
@pytest.mark.parametrize("length", [1, 5, 64, 65, 200])
@pytest.mark.parametrize("window", [1, 3, 64, 70, 199])
@pytest.mark.parametrize("kind", [CausalMask, BidirectionalMask])
def test_blocks_equal_the_written_out_mask(
    kind: type[CausalMask | BidirectionalMask], window: int, length: int, kernel: Kernel
) -> None:
    results = []
    for each in (kernel, ReferenceKernel()):
        inputs = tensors(length)
        output = each(*inputs, kind(window), 0.3)
        (output * torch.arange(8)).square().sum().backward()
        results.append([output, *(x.grad for x in inputs)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("num_queries", [1, 3, 90])
@pytest.mark.parametrize("window", [1, 4, 80])
def test_blocks_behind_a_cached_prefix(num_queries: int, window: int) -> None:
    inputs = [x.detach() for x in tensors(num_queries, 150)]
    ours = SDPAKernel()(*inputs, CausalMask(window), 0.3)
    torch.testing.assert_close(ours, ReferenceKernel()(*inputs, CausalMask(window), 0.3))


def test_a_block_never_meets_the_whole_square() -> None:
    largest = 0

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        is_causal: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, query.shape[2] * key.shape[2])
        return query

    query, key, value = (x.detach() for x in tensors(1024))
    attend_in_blocks(attend, query, key, value, CausalMask(128), 127, 0)
    assert largest <= 64 * 191


DOCUMENTS = torch.tensor([[0] * 90 + [1] * 60, [0] * 20 + [1] * 50 + [2] * 80])


@pytest.mark.parametrize("inside", [CausalMask(), CausalMask(7), BidirectionalMask(), BidirectionalMask(7)])
def test_documents_and_windows_intersect(inside: Mask) -> None:
    mask = document_mask(DOCUMENTS, inside)
    assert isinstance(mask, DocumentMask)
    assert mask.lengths is not None
    results = []
    for each in (SDPAKernel(), ReferenceKernel()):
        inputs = tensors(150)
        output = each(*inputs, mask, 0.3)
        output.square().sum().backward()
        results.append([output, *(x.grad for x in inputs)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_window_inside_documents_equals_separate_runs() -> None:
    inputs = [x.detach().float() for x in tensors(150, batch=1)]
    mask = document_mask(DOCUMENTS[:1], CausalMask()).within(9)
    packed = SDPAKernel()(*inputs, mask, 0.3)
    for part in (slice(0, 90), slice(90, 150)):
        alone = SDPAKernel()(*(x[:, :, part] for x in inputs), CausalMask(9), 0.3)
        assert torch.equal(packed[:, :, part], alone)


def test_narrowing_keeps_the_narrower_window() -> None:
    assert CausalMask().within(None) == CausalMask()
    assert CausalMask(5).within(9) == CausalMask(5)
    assert CausalMask(9).within(5) == CausalMask(5)
    assert BidirectionalMask().within(5) == BidirectionalMask(5)


def test_positions_in_any_order() -> None:
    keys = torch.tensor([[4, 5, 2, 3, -1], [0, 1, -4, -3, -2]])
    mask = PositionMask(torch.tensor([[5], [1]]), keys, CausalMask(3))
    allowed = mask.allowed(1, 5, torch.device("cpu"))[:, 0, 0]
    assert allowed.tolist() == [[True, True, False, True, False], [True, True, False, False, False]]
    assert mask.distances(1, 5, torch.device("cpu"))[0, 0].tolist() == [1, 0, 3, 2, 6]


@pytest.mark.parametrize("kernel", [SDPAKernel(), ReferenceKernel()], ids=["sdpa", "reference"])
def test_a_row_without_any_key_stays_finite(kernel: Kernel) -> None:
    inputs = tensors(2, 3)
    mask = PositionMask(torch.tensor([[0, 1]]), torch.tensor([[-1, 1, -1]]))  # the first query sees nothing
    output = kernel(*inputs, mask, 0.3)
    output.square().sum().backward()
    assert (output[:, :, 0] == 0).all()
    for tensor in inputs:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
