"""Activation checkpointing: the same gradients bit for bit, fewer bytes kept, and where it steps aside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from insight.models import (
    ActivationCheckpointing,
    AttentionModule,
    Block,
    Decoder,
    DecoderConfig,
    DifferentialAttention,
    GatedDeltaNet,
    GroupedQueryAttention,
    LatentAttention,
    MixtureOfExperts,
    ParallelResidual,
    RelativeBias,
    SandwichNorm,
)
from insight.models import checkpointing as checkpointing_module
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError

WAYS: dict[str, ActivationCheckpointing] = {
    "all": ActivationCheckpointing(),
    "every second": ActivationCheckpointing(every=2),
    "attention": ActivationCheckpointing(part="attention"),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "documents": {"dropout": 0.1, "block": SandwichNorm()},
    "window": {"attention": GroupedQueryAttention(4, 2, window=5)},
    "learned bias": {"attention": GroupedQueryAttention(4, 2, position=RelativeBias(8, 30))},
    "latent": {"attention": LatentAttention(4, 12, 10), "dropout": 0.2},
    "parallel": {"block": ParallelResidual(), "dropout": 0.2},
    "differential": {"attention": DifferentialAttention(4, 2)},
    "delta net": {"attention": GatedDeltaNet(4)},
    "mixture": {"feed_forward": MixtureOfExperts(4, 2)},
}


def decoder(way: ActivationCheckpointing | None, **options: Any) -> Decoder:
    torch.manual_seed(0)
    settings = {"attention": GroupedQueryAttention(4, 2), "hidden_size": 32, "num_layers": 4} | options
    return DecoderConfig(**settings, activation_checkpointing=way).build(50).train()  # type: ignore[arg-type]


def ids(length: int = 24) -> torch.Tensor:
    return torch.randint(0, 50, (2, length), generator=torch.Generator().manual_seed(1))


def step(network: Any, parameters: list[torch.nn.Parameter], **arguments: Any) -> list[torch.Tensor]:
    """Output and gradients of one training step, with the same random numbers every time."""
    for parameter in parameters:
        parameter.grad = None
    torch.manual_seed(7)
    hidden = network(ids(), **arguments)
    hidden.square().mean().backward()
    return [hidden.detach(), *(p.grad for p in parameters if p.grad is not None)]


def equal(ours: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return len(ours) == len(expected) and all(map(torch.equal, ours, expected))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_gradients_are_equal_bit_for_bit(name: str, way: ActivationCheckpointing, bfloat16: bool) -> None:
    documents = torch.tensor([[0] * 9 + [1] * 15, [0] * 20 + [1] * 4])
    arguments = {"document_ids": documents} if name == "documents" else {}
    results = []
    for chosen in (None, way):
        network = decoder(chosen, **NETWORKS[name])
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            results.append(step(network, list(network.parameters()), **arguments))
    assert equal(results[1], results[0])


def test_a_lost_random_state_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the test above: with this fault planted, gradients must differ."""

    def forgetful(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(*args, preserve_rng_state=False, **kwargs)

    monkeypatch.setattr(checkpointing_module, "checkpoint", forgetful)
    plain, faulty = decoder(None, dropout=0.3), decoder(WAYS["all"], dropout=0.3)
    expected, ours = (step(network, list(network.parameters())) for network in (plain, faulty))
    assert torch.equal(ours[0], expected[0])
    assert not equal(ours[1:], expected[1:])


def saved_bytes(network: Decoder) -> int:
    """Bytes of the distinct memories that autograd keeps, weights apart."""
    storages: dict[int, torch.UntypedStorage] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(ids(64))
    return sum(storage.nbytes() for storage in storages.values())


def test_what_is_kept_shrinks_in_order() -> None:
    kept = {name: saved_bytes(decoder(way)) for name, way in {"none": None, **WAYS}.items()}
    assert kept["all"] < 0.3 * kept["none"]
    assert kept["all"] < kept["every second"] < 0.75 * kept["none"]
    assert kept["all"] < kept["attention"] < 0.9 * kept["none"]


def test_of_a_whole_block_only_its_input_is_kept() -> None:
    stream = 2 * 64 * 32 * 4
    one, two = (saved_bytes(decoder(WAYS["all"], num_layers=layers)) for layers in (4, 5))
    assert two - one == stream


def test_which_modules_recompute() -> None:
    def recomputing(way: ActivationCheckpointing, kind: type) -> list[int]:
        blocks = decoder(way).blocks
        return [
            index
            for index, block in enumerate(blocks)
            if any(isinstance(m, kind) and m.recomputes for m in block.modules())  # type: ignore
        ]

    assert recomputing(WAYS["all"], Block) == [0, 1, 2, 3]
    assert recomputing(WAYS["every second"], Block) == [0, 2]
    assert recomputing(WAYS["all"], AttentionModule) == []
    assert recomputing(WAYS["attention"], AttentionModule) == [0, 1, 2, 3]
    assert recomputing(ActivationCheckpointing("attention", 3), AttentionModule) == [0, 3]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_cache_and_no_gradients_change_nothing(
    way: ActivationCheckpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, plain = decoder(way).eval(), decoder(None).eval()

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("recomputed")

    monkeypatch.setattr(checkpointing_module, "checkpoint", never)
    cache = network.make_cache(2)
    parts = [network(part, cache=cache) for part in ids().split([9, 1, 14], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), plain(ids()))
    with torch.no_grad():
        assert torch.equal(network(ids()), plain(ids()))
    with pytest.raises(AssertionError, match="recomputed"):
        network(ids())


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("whole", [True, False], ids=["network", "blocks"])
def test_compiled(way: ActivationCheckpointing, dropout: float, whole: bool) -> None:
    results = []
    for chosen in (None, way):
        network = decoder(chosen, num_layers=2, dropout=dropout)
        torch._dynamo.reset()
        call: Any = network
        if whole:
            call = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)
        else:
            for block in network.blocks:
                block.compile(backend="aot_eager", fullgraph=True, dynamic=False)
        results.append(step(call, list(network.parameters())))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)


def test_networks_that_differ_in_it_alone_are_equal_and_share_weights() -> None:
    with_it, without = decoder(WAYS["all"]), decoder(None)
    assert with_it.config == without.config
    assert list(with_it.state_dict()) == list(without.state_dict())
    assert all(map(torch.equal, with_it.parameters(), without.parameters()))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_survives_json(way: ActivationCheckpointing) -> None:
    config = replace(DecoderConfig(), activation_checkpointing=way)
    again = component_from_dict(config.to_dict())
    assert isinstance(again, DecoderConfig)
    assert again.activation_checkpointing == way


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        ActivationCheckpointing(every=0)
    assert (error.value.option, error.value.value) == ("every", 0)
    with pytest.raises(ConfigError) as error:
        ActivationCheckpointing(part="blocks")  # type: ignore[arg-type]
    assert (error.value.option, error.value.value) == ("part", "blocks")
