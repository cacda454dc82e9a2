"""The decoder's promises: causality, caches, documents, counts, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from insight.models import (
    Decoder,
    DecoderConfig,
    GroupedQueryAttention,
    NoPosition,
    RMSNorm,
    Rope,
    ScaledInitialization,
    SwiGLU,
    ZeroOutputInitialization,
    parameter_role,
)
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError

VOCABULARY = 50


def decoder(dtype: torch.dtype = torch.float64, **options: Any) -> Decoder:
    torch.manual_seed(0)
    attention = {"num_heads": 4, "num_key_value_heads": 2} | options.pop("attention", {})
    settings = {"hidden_size": 32, "num_layers": 2, "max_sequence_length": 64} | options
    config = DecoderConfig(attention=GroupedQueryAttention(**attention), **settings)
    return config.build(VOCABULARY).to(dtype).eval()


def ids(batch: int = 2, length: int = 24) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chunks", [[24], [1] * 24, [7, 17], [3, 1, 1, 12, 7], [23, 1]])
@pytest.mark.parametrize("qk_norm", ["none", "rms", "rms_weightless"])
def test_cached_chunks_equal_one_pass(chunks: list[int], qk_norm: str) -> None:
    network = decoder(attention={"qk_norm": qk_norm})
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids().split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(ids()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", ["sdpa", "reference", "tiled"])
def test_the_future_never_reaches_the_past(kernel: str) -> None:
    network = decoder(attention={"kernel": kernel})
    tokens = ids()
    before = network(tokens)
    tokens[:, 15:] = (tokens[:, 15:] + 1) % VOCABULARY
    after = network(tokens)
    torch.testing.assert_close(after[:, :15], before[:, :15], rtol=1e-12, atol=1e-12)
    assert not torch.isclose(after[:, 15:], before[:, 15:]).all(dim=-1).any()


@pytest.mark.parametrize("kernel", ["sdpa", "reference", "tiled"])
def test_no_gradient_flows_from_the_past_to_the_future(kernel: str) -> None:
    network = decoder(attention={"kernel": kernel})
    inputs: list[torch.Tensor] = []

    def keep(_module: Any, _arguments: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        inputs.append(output)

    network.embedding.register_forward_hook(keep)
    network(ids())[:, :15].square().sum().backward()
    gradient = inputs[0].grad
    assert gradient is not None
    assert (gradient[:, 15:] == 0).all()
    assert (gradient[:, :15] != 0).any(dim=-1).all()


@pytest.mark.parametrize("kernel", ["sdpa", "tiled"])
def test_kernels_equal_the_reference_with_gradients(kernel: str) -> None:
    results = []
    for name in ("reference", kernel):
        network = decoder(attention={"kernel": name})
        output = network(ids())
        output.square().mean().backward()
        results.append([output.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def test_training_in_bfloat16_stays_near_float32() -> None:
    network = decoder(torch.float32)
    network.train()
    exact = network(ids())
    with torch.autocast("cpu", torch.bfloat16):
        half = network(ids())
    error = (half.float() - exact).norm() / exact.norm()
    assert error < 0.03


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_trains_in_every_dtype(dtype: torch.dtype) -> None:
    network = decoder(dtype, attention={"qk_norm": "rms"}, dropout=0.1, logit_soft_cap=15.0).train()
    network.logits(network(ids())).float().square().mean().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()


def test_packed_documents_equal_separate_runs_with_gradients() -> None:
    first, second = ids(1, 9), ids(1, 24)[:, 9:]
    packed = torch.cat([first, second], dim=1)
    documents = torch.tensor([[0] * 9 + [1] * 15])
    positions = torch.cat([torch.arange(9), torch.arange(15)])[None]
    network = decoder()
    together = network(packed, document_ids=documents, position_ids=positions)
    together.square().sum().backward()
    gradients = [p.grad for p in network.parameters()]
    twin = decoder()
    separate = [twin(part) for part in (first, second)]
    sum(part.square().sum() for part in separate).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(together, torch.cat(separate, dim=1))
    for ours, expected in zip(gradients, (p.grad for p in twin.parameters()), strict=True):
        torch.testing.assert_close(ours, expected)


def test_interleaved_documents_do_not_see_each_other() -> None:
    documents = torch.tensor([[0, 1, 0, 1, 1, 0]])
    network = decoder()
    tokens = ids(1, 6)
    before = network(tokens, document_ids=documents)
    tokens[0, 1] = (tokens[0, 1] + 1) % VOCABULARY
    after = network(tokens, document_ids=documents)
    torch.testing.assert_close(after[:, documents[0] == 0], before[:, documents[0] == 0])
    assert not torch.allclose(after[:, 3:5], before[:, 3:5])


def test_rotation_depends_on_distances_only() -> None:
    network = decoder()
    positions = torch.arange(24)[None].expand(2, -1)
    torch.testing.assert_close(
        network(ids(), position_ids=positions), network(ids(), position_ids=positions + 30)
    )


def test_without_positions_the_prefix_has_no_order() -> None:
    network = decoder(attention={"position": NoPosition()}, num_layers=1)
    tokens = ids(1, 5)
    swapped = tokens[:, [1, 0, 2, 3, 4]]
    torch.testing.assert_close(network(tokens)[:, 4], network(swapped)[:, 4])
    rotary = decoder(num_layers=1)
    assert not torch.allclose(rotary(tokens)[:, 4], rotary(swapped)[:, 4])


def test_rotation_stays_exact_in_a_bfloat16_network() -> None:
    network = decoder(torch.bfloat16)
    tables = network.blocks[0].attention.position.tables(torch.tensor([4097]))  # type: ignore[union-attr]
    cosine = tables[0] if isinstance(tables, tuple) else tables
    assert cosine.dtype == torch.float32


@pytest.mark.parametrize("tied", [False, True])
def test_counts_equal_measurement(tied: bool) -> None:
    network = decoder(torch.float32, tie_embeddings=tied)
    assert network.num_parameters() == sum({id(p): p.numel() for p in network.parameters()}.values())
    batch, length = 3, 16
    tokens = ids(batch, length)
    with FlopCounterMode(display=False) as counter:
        reference = decoder(torch.float32, tie_embeddings=tied, attention={"kernel": "reference"})
        reference.logits(reference(tokens)).sum().backward()
    assert counter.get_total_flops() == network.flops_per_token(length) * batch * length


def test_roles_cover_every_parameter() -> None:
    roles = parameter_role(decoder())
    assert set(roles) == {name for name, _ in decoder().named_parameters()}
    assert set(roles.values()) == {"embedding", "head", "hidden", "vector"}
    assert parameter_role(decoder(tie_embeddings=True))["embedding.weight"] == "embedding"


def test_zero_outputs_make_the_blocks_the_identity() -> None:
    network = decoder(initialization=ZeroOutputInitialization())
    expected = network.norm(network.embedding(ids()))
    torch.testing.assert_close(network(ids()), expected)


def test_scaled_initialization_scales_outputs_by_depth() -> None:
    network = decoder(torch.float32, hidden_size=256, num_layers=8, initialization=ScaledInitialization())
    block: Any = network.blocks[3]
    assert block.attention.query_key_value.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.attention.output.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)


def test_soft_cap_bounds_the_scores() -> None:
    network = decoder(logit_soft_cap=0.5)
    assert network.logits(network(ids()) * 1e3).abs().max() <= 0.5


def test_dropout_only_in_training() -> None:
    network = decoder(dropout=0.5)
    torch.testing.assert_close(network(ids()), network(ids()))
    network.train()
    assert not torch.equal(network(ids()), network(ids()))


def test_configuration_survives_json() -> None:
    config = decoder(attention={"position": Rope(123.0)}, feed_forward=SwiGLU(40)).config
    assert component_from_dict(config.to_dict()) == config


def test_meta_device_then_weights() -> None:
    with torch.device("meta"):
        empty = decoder().config.build(VOCABULARY)
    empty = empty.to_empty(device="cpu").double().eval()
    empty.load_state_dict(decoder().state_dict())
    torch.testing.assert_close(empty(ids()), decoder()(ids()))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: GroupedQueryAttention(6, 4), "num_key_value_heads=4"),
        (lambda: GroupedQueryAttention(0), "num_heads=0"),
        (lambda: GroupedQueryAttention(4, qk_norm="rmss"), "qk_norm=rmss"),  # type: ignore[arg-type]
        (lambda: GroupedQueryAttention(4, kernel="flesh"), "kernel=flesh"),  # type: ignore[arg-type]
        (lambda: GroupedQueryAttention(4, head_dim=5), "head_dim=5"),
        (lambda: DecoderConfig(hidden_size=30), "num_heads=4"),
        (lambda: DecoderConfig(hidden_size=20), "head_dim=5"),
        (lambda: DecoderConfig(num_layers=0), "num_layers=0"),
        (lambda: DecoderConfig(dropout=1.0), "dropout=1.0"),
        (lambda: DecoderConfig(logit_soft_cap=0.0), "logit_soft_cap=0.0"),
        (lambda: DecoderConfig(max_sequence_length=0), "max_sequence_length=0"),
        (lambda: SwiGLU(-1), "intermediate_size=-1"),
        (lambda: RMSNorm(eps=0.0), "eps=0"),
        (lambda: Rope(base=0.0), "base=0"),
        (lambda: DecoderConfig().build(0), "vocabulary_size=0"),
    ],
)
def test_mistakes_are_named(build: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build()


def test_wrong_inputs_are_named() -> None:
    network = decoder()
    with pytest.raises(ConfigError, match="input_ids is"):
        network(torch.zeros(3))
    with pytest.raises(ConfigError, match="position_ids has shape"):
        network(ids(), position_ids=torch.arange(24))
    with pytest.raises(ConfigError, match="document_ids with a cache"):
        network(ids(), document_ids=torch.zeros_like(ids()), cache=network.make_cache(2))
    with pytest.raises(ConfigError):
        network(ids(2, 9), cache=network.make_cache(2, max_length=8))


def test_a_bias_of_the_head_is_in_the_scores_and_in_what_losses_multiply() -> None:
    network = decoder(head_bias=True)
    assert parameter_role(network)["head.bias"] == "vector"
    assert network.head is not None
    assert not network.head.bias.any()  # it begins at zero
    torch.nn.init.normal_(network.head.bias)
    hidden = network(ids())
    first, second = network.head_product(hidden)
    torch.testing.assert_close(first @ second.T, network.logits(hidden), rtol=1e-12, atol=1e-12)
    (first @ second.T).square().sum().backward()
    assert network.head.bias.grad is not None
    assert network.head.bias.grad.abs().min() > 0
    plain = decoder()
    assert all(a is b for a, b in zip(plain.head_product(hidden), (hidden, plain.head_weight), strict=True))
    with pytest.raises(ConfigError) as caught:
        decoder(head_bias=True, tie_embeddings=True)
    assert caught.value.option == "head_bias"
