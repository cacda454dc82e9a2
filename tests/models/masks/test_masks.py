"""Masks: the written-out form by brute force, and the cheap calls that must equal it."""

from __future__ import annotations

import pytest
import torch

from insight.models import CausalMask, DocumentMask, Kernel, ReferenceKernel, SDPAKernel, TiledKernel
from insight.models.attention import causal_mask

DOCUMENTS = {
    "one": [[0] * 12, [0] * 12],
    "same cuts": [[0] * 5 + [1] * 7, [4] * 5 + [9] * 7],
    "different cuts": [[0] * 5 + [1] * 4 + [2] * 3, [7] * 12],
    "single tokens": [list(range(12)), [0] * 11 + [1]],
    "in pieces": [[0, 1, 0, 1, 2, 2, 0, 0, 1, 1, 2, 2], [3] * 12],
}


def tensors(length: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, num_heads, length, 8, generator=generator, dtype=torch.float64).requires_grad_()
        for num_heads in (4, 2, 2)
    ]


@pytest.mark.parametrize(("num_queries", "num_keys"), [(5, 5), (1, 5), (3, 7)])
def test_causal_by_brute_force(num_queries: int, num_keys: int) -> None:
    allowed = CausalMask().allowed(num_queries, num_keys, torch.device("cpu"))[0, 0]
    for query in range(num_queries):
        for key in range(num_keys):
            assert bool(allowed[query, key]) == (key <= num_keys - num_queries + query)


@pytest.mark.parametrize("ids", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_documents_by_brute_force(ids: list[list[int]]) -> None:
    allowed = causal_mask(torch.tensor(ids)).allowed(12, 12, torch.device("cpu"))
    for row in range(2):
        for query in range(12):
            for key in range(12):
                expected = key <= query and ids[row][key] == ids[row][query]
                assert bool(allowed[row, 0, query, key]) == expected


@pytest.mark.parametrize("kernel", [SDPAKernel(), TiledKernel()], ids=["sdpa", "tiled"])
@pytest.mark.parametrize("ids", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_cheap_calls_equal_the_written_out_mask(kernel: Kernel, ids: list[list[int]]) -> None:
    mask = causal_mask(torch.tensor(ids))
    results = []
    for each in (kernel, ReferenceKernel()):
        inputs = tensors()
        output = each(*inputs, mask, 0.3)
        (output * torch.arange(8)).square().sum().backward()
        results.append([output, *(x.grad for x in inputs)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_lengths_are_found_where_documents_are_whole() -> None:
    mask = causal_mask(torch.tensor(DOCUMENTS["different cuts"]))
    assert isinstance(mask, DocumentMask)
    assert mask.lengths == ((5, 4, 3), (12,))
    scattered = causal_mask(torch.tensor(DOCUMENTS["in pieces"]))
    assert isinstance(scattered, DocumentMask)
    assert scattered.lengths is None


def test_packed_documents_equal_separate_runs_bit_for_bit() -> None:
    query, key, value = (x.detach().float() for x in tensors())
    packed = SDPAKernel()(query, key, value, causal_mask(torch.tensor([[0] * 5 + [1] * 7] * 2)), 0.3)
    for part in (slice(0, 5), slice(5, 12)):
        alone = SDPAKernel()(query[:, :, part], key[:, :, part], value[:, :, part], CausalMask(), 0.3)
        assert torch.equal(packed[:, :, part], alone)


def test_a_neighbouring_document_would_be_noticed() -> None:
    inputs = [x.detach() for x in tensors()]
    right = SDPAKernel()(*inputs, causal_mask(torch.tensor([[0] * 5 + [1] * 7] * 2)), 0.3)
    wrong = SDPAKernel()(*inputs, causal_mask(torch.tensor([[0] * 4 + [1] * 8] * 2)), 0.3)
    assert not torch.allclose(right[:, :, 4:], wrong[:, :, 4:])
