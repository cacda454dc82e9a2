"""torch.compile: one graph, one compilation, the same numbers as eager mode."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from insight.models import DecoderConfig, GroupedQueryAttention
from insight.runtime.hardware import compiler_path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler_path() is None, reason="torch.compile needs a C++ compiler"),
]


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_training_compiles_whole_and_once(bfloat16: bool) -> None:
    torch.manual_seed(0)
    attention = GroupedQueryAttention(num_heads=4, num_key_value_heads=2, qk_norm="rms")
    network = DecoderConfig(hidden_size=32, num_layers=2, attention=attention).build(50)
    batches = torch.randint(0, 50, (3, 2, 24), generator=torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(network, fullgraph=True, dynamic=False)

    def gradients(call: torch.nn.Module, ids: torch.Tensor) -> list[torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            hidden = call(ids)
        hidden.square().mean().backward()
        return [
            hidden.detach().float(),
            *(p.grad.clone() for p in network.parameters() if p.grad is not None),
        ]

    for ids in batches:
        for result, expected in zip(gradients(compiled, ids), gradients(network, ids), strict=True):
            error = (result - expected).norm() / expected.norm().clamp_min(1e-12)
            assert error < (0.05 if bfloat16 else 1e-4)
    assert counters["stats"]["unique_graphs"] == 1


def test_documents_compile_too() -> None:
    torch.manual_seed(0)
    network = DecoderConfig(hidden_size=32, num_layers=1).build(50)
    ids = torch.randint(0, 50, (2, 24))
    documents = torch.tensor([[0] * 9 + [1] * 15, [0] * 20 + [1] * 4])
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(ids, document_ids=documents), network(ids, document_ids=documents), rtol=1e-4, atol=1e-5
        )
