"""torch.compile takes linear mixers whole, with one graph, and decodes without compiling again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_networks import HYBRIDS, MIXERS, VOCABULARY, decoder
from torch._dynamo.utils import counters

from insight.models import Decoder

MIXER_NAMES = ["delta net, fewer keys", "gated linear", "retention"]
NAMES = [*MIXER_NAMES, "attention first"]


def network_of(name: str) -> Decoder:
    """As few layers as possible: tracing takes its time."""
    return decoder(MIXERS[name], num_layers=1) if name in MIXERS else decoder(HYBRIDS[name])


def tokens(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))


def compile_anew(network: torch.nn.Module) -> Any:
    torch._dynamo.reset()
    counters.clear()
    # Tracing is what variants can break; turning the graph into machine code is the same for all.
    return torch.compile(network, backend="aot_eager", fullgraph=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_graph_and_the_same_numbers(name: str) -> None:
    network = network_of(name)
    compiled = compile_anew(network)

    def gradients(call: Any, ids: torch.Tensor) -> list[torch.Tensor]:
        network.zero_grad()
        hidden = call(ids)
        hidden.square().mean().backward()
        return [hidden.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]

    for seed in range(2):
        ids = tokens(70, seed)
        for result, expected in zip(gradients(compiled, ids), gradients(network, ids), strict=True):
            assert (result - expected).norm() <= 1e-6 * expected.norm().clamp_min(1e-6)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXER_NAMES)
def test_documents_compile_too(name: str) -> None:
    network = network_of(name)
    documents = torch.tensor([[0] * 9 + [1] * 61, [1] * 20 + [0] * 49 + [1]])  # one of them in two pieces
    with torch.no_grad():
        result = compile_anew(network)(tokens(70), document_ids=documents)
        torch.testing.assert_close(result, network(tokens(70), document_ids=documents))


@pytest.mark.slow
@pytest.mark.parametrize("max_rollback", [0, 2])
@pytest.mark.parametrize("name", NAMES)
def test_decoding_compiles_once(name: str, max_rollback: int) -> None:
    network = network_of(name)
    compiled = compile_anew(network)
    cache, eager_cache = network.make_cache(2, 40, max_rollback=max_rollback), network.make_cache(2, 40)
    with torch.no_grad():
        network(tokens(5), cache=cache)
        network(tokens(5), cache=eager_cache)
        graphs = []
        for step in range(30):
            ids = tokens(1, step)
            result = compiled(ids, cache=cache)
            torch.testing.assert_close(result, network(ids, cache=eager_cache), rtol=1e-6, atol=1e-7)
            graphs.append(counters["stats"]["unique_graphs"])
    # The length is taken for a constant at first and for a number from the second token on.
    assert graphs[2] == graphs[-1] <= 2


@pytest.mark.slow
def test_a_compilation_for_every_length_is_noticed() -> None:
    network = network_of("retention")
    cache = network.make_cache(2, 40)
    # The fault: a length stays the constant that it was taken for.
    with torch._dynamo.config.patch(automatic_dynamic_shapes=False), torch.no_grad():
        compiled = compile_anew(network)
        for _ in range(4):
            compiled(tokens(1), cache=cache)
    assert counters["stats"]["unique_graphs"] == 4
