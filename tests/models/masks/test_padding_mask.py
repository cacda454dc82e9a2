"""Padding in both directions: what is seen, and that no query is without a key."""

from __future__ import annotations

import pytest
import torch

from insight.models import BidirectionalMask, DocumentMask, PaddingMask, ReferenceKernel, SDPAKernel
from insight.models.masks import padding_mask

TOKENS = torch.tensor([[True] * 5, [False, False, True, True, True], [True, True, False, False, False]])
EMPTY = torch.tensor([[True, True], [False, False]])


def test_every_query_sees_the_tokens_of_its_row() -> None:
    mask = padding_mask(TOKENS)
    written_out = mask.allowed(4, 5, torch.device("cpu")).expand(3, 1, 4, 5)
    assert torch.equal(written_out, TOKENS[:, None, None].expand(3, 1, 4, 5))


def test_both_forms_say_the_same() -> None:
    mask = padding_mask(TOKENS)
    rows, queries, keys = torch.arange(3)[:, None, None], torch.arange(4)[:, None], torch.arange(5)
    element_by_element = mask.visible(rows, queries, keys, 1)
    assert torch.equal(
        element_by_element.expand(3, 4, 5), mask.allowed(4, 5, torch.device("cpu"))[:, 0].expand(3, 4, 5)
    )


def test_it_is_never_a_square() -> None:
    assert padding_mask(TOKENS).allowed(1000, 5, torch.device("cpu")).numel() == 15


def test_without_padding_there_is_nothing_to_write_out() -> None:
    assert padding_mask(None) == BidirectionalMask()


@pytest.mark.parametrize("kernel", [ReferenceKernel(), SDPAKernel()])
def test_a_row_of_padding_is_finite_with_its_gradient(kernel: ReferenceKernel | SDPAKernel) -> None:
    query = torch.randn(2, 2, 3, 4, requires_grad=True)
    key, value = torch.randn(2, 2, 2, 2, 4).unbind()
    output = kernel(query, key, value, padding_mask(EMPTY), 0.5)
    output.sum().backward()
    assert output.isfinite().all()
    assert query.grad is not None
    assert query.grad.isfinite().all()


def test_a_window_leaves_padding_to_itself() -> None:
    mask = padding_mask(TOKENS).within(1)
    assert isinstance(mask, DocumentMask)
    seen = mask.allowed(5, 5, torch.device("cpu"))
    assert seen.any(dim=-1).all()  # also of padding far from any token
    near = (torch.arange(5)[:, None] - torch.arange(5)).abs() <= 1
    for row in range(3):
        tokens = TOKENS[row]
        expected = near & (tokens[:, None] == tokens)
        assert torch.equal(seen[row, 0], expected)


def test_no_window_changes_nothing() -> None:
    mask = padding_mask(TOKENS)
    assert isinstance(mask, PaddingMask)
    assert mask.within(None) is mask
