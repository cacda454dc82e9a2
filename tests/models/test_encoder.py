"""The encoder: both directions, padding on either side, windows, packing, pooling, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from insight.models import (
    Alibi,
    DifferentialAttention,
    Encoder,
    EncoderConfig,
    FirstTokenPooling,
    GatedDeltaNet,
    GroupedQueryAttention,
    LastTokenPooling,
    LatentAttention,
    LayerPattern,
    LearnedPosition,
    MeanPooling,
    NoPosition,
    PostNorm,
    RelativeBias,
    Rope,
    SinusoidalPosition,
    ZeroOutputInitialization,
    parameter_role,
)
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError

VOCABULARY = 50
POSITIONS: dict[str, dict[str, Any]] = {
    "rope": {"attention": GroupedQueryAttention(4, 2)},
    "bias": {"attention": GroupedQueryAttention(4, 2, position=RelativeBias(8, 20, bidirectional=True))},
    "latent": {"attention": LatentAttention(4, 8, head_dim=8, rotary_dim=4, value_dim=8)},
    "differential": {"attention": DifferentialAttention(4, 2)},
    "learned": {
        "attention": GroupedQueryAttention(4, 2, position=NoPosition()),
        "input_position": LearnedPosition(std=0.5),
    },
    "sines": {
        "attention": GroupedQueryAttention(4, 2, position=NoPosition()),
        "input_position": SinusoidalPosition(),
    },
    "window": {"attention": GroupedQueryAttention(4, 2, window=4)},
}


def encoder(**options: Any) -> Encoder:
    settings = {"hidden_size": 32, "num_layers": 2, "max_sequence_length": 64} | options
    network: Encoder = build_shaken(EncoderConfig(**settings), VOCABULARY, noise=0.1).eval()
    return network


def ids(batch: int = 2, length: int = 24) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


def test_every_token_reaches_every_other() -> None:
    network, tokens = encoder(num_layers=1), ids(1)
    before = network(tokens)
    for changed in (0, 12, 23):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % VOCABULARY
        assert not torch.isclose(network(other), before).all(dim=-1).any()


def test_a_window_reaches_as_far_to_both_sides() -> None:
    network, tokens = encoder(num_layers=1, attention=GroupedQueryAttention(4, 2, window=3)), ids(1)
    before = network(tokens)
    tokens[0, 12] = (tokens[0, 12] + 1) % VOCABULARY
    same = torch.isclose(network(tokens), before, rtol=1e-12, atol=1e-12).all(dim=-1)[0]
    assert same.tolist() == [abs(place - 12) > 3 for place in range(24)]


@pytest.mark.parametrize("options", POSITIONS.values(), ids=POSITIONS.keys())
def test_padding_on_either_side_changes_no_token(options: dict[str, Any]) -> None:
    network, lengths = encoder(**options), [24, 9, 1]
    texts = [ids(1, length) for length in lengths]
    alone = [network(text)[0] for text in texts]
    noise = torch.randint(0, VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(7))
    for side in ("right", "left"):
        batch, mask = noise.clone(), torch.zeros(3, 24, dtype=torch.bool)
        places = [slice(0, n) if side == "right" else slice(24 - n, 24) for n in lengths]
        for row, place in enumerate(places):
            batch[row, place], mask[row, place] = texts[row][0], True
        together = network(batch, token_mask=mask)
        for row, place in enumerate(places):
            torch.testing.assert_close(together[row, place], alone[row], rtol=1e-9, atol=1e-10)
        assert together.isfinite().all()


def test_forgetting_the_mask_would_be_noticed() -> None:
    network, text = encoder(), ids(1, 9)
    padded = torch.cat([text, torch.zeros(1, 5, dtype=torch.int64)], dim=1)
    assert not torch.allclose(network(padded)[:, :9], network(text))


@pytest.mark.parametrize("options", POSITIONS.values(), ids=POSITIONS.keys())
def test_a_row_of_padding_is_finite_with_its_gradients(options: dict[str, Any]) -> None:
    network = encoder(**options)
    mask = torch.ones(2, 24, dtype=torch.bool)
    mask[1] = False
    hidden = network(ids(), token_mask=mask)
    hidden.square().sum().backward()
    assert hidden.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("window", [None, 4])
def test_packed_texts_equal_separate_ones_with_gradients(window: int | None) -> None:
    first, second = ids(1, 9), ids(1, 24)[:, 9:]
    network = encoder(attention=GroupedQueryAttention(4, 2, window=window))
    packed = torch.cat([first, second], dim=1)
    documents = torch.tensor([[0] * 9 + [1] * 15])
    positions = torch.cat([torch.arange(9), torch.arange(15)])[None]
    gradients = []
    for separate in (False, True):
        network.zero_grad()
        if separate:
            hidden = torch.cat([network(first), network(second)], dim=1)
        else:
            hidden = network(packed, document_ids=documents, position_ids=positions)
        hidden.square().sum().backward()
        gradients.append(
            [hidden.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
        )
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


MASK = torch.tensor([[True] * 6, [False, False, True, True, True, False], [False] * 6])


def test_pooling_by_hand() -> None:
    hidden = torch.randn(3, 6, 4, dtype=torch.float64)
    mean, first, last = (kind().build() for kind in (MeanPooling, FirstTokenPooling, LastTokenPooling))
    for pool, row_1 in ((mean, hidden[1, 2:5].mean(0)), (first, hidden[1, 2]), (last, hidden[1, 4])):
        pooled = pool(hidden, MASK)
        torch.testing.assert_close(pooled[1], row_1)
        torch.testing.assert_close(pooled[:1], pool(hidden[:1], None))
        assert pooled.isfinite().all()
    torch.testing.assert_close(mean(hidden, None)[0], hidden[0].mean(0))
    torch.testing.assert_close(first(hidden, None)[0], hidden[0, 0])
    torch.testing.assert_close(last(hidden, None)[0], hidden[0, 5])
    assert (mean(hidden, MASK)[2] == 0).all()


def test_padding_that_is_no_number_does_not_reach_the_mean() -> None:
    hidden = torch.randn(3, 6, 4)
    hidden[~MASK] = float("nan")
    assert MeanPooling().build()(hidden, MASK).isfinite().all()


@pytest.mark.parametrize("pooling", [MeanPooling(), FirstTokenPooling(), LastTokenPooling()])
def test_one_vector_a_text_whatever_the_padding(pooling: Any) -> None:
    network, text = encoder(pooling=pooling), ids(1, 9)
    alone = network(text)
    assert alone.shape == (1, 32)
    mask = torch.tensor([[False] * 4 + [True] * 9 + [False] * 2])
    padded = torch.cat([ids(1, 4), text, ids(1, 2)], dim=1)
    torch.testing.assert_close(network(padded, token_mask=mask), alone, rtol=1e-9, atol=1e-10)
    alone.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_gradients_are_those_of_the_function() -> None:
    network = encoder(hidden_size=8, num_layers=1, attention=GroupedQueryAttention(2), pooling=MeanPooling())
    mask = torch.tensor([[True] * 4, [False, True, True, False]])
    positions = torch.arange(4)
    hidden = network.embed(ids(2, 4), positions).detach().requires_grad_()

    def call(hidden: torch.Tensor) -> torch.Tensor:
        from insight.models.masks import padding_mask

        assert network.pool is not None
        return network.pool(network.run(hidden, positions, padding_mask(mask)), mask)

    assert gradcheck(call, (hidden,))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "masked"), [("rope", False), *((name, True) for name in POSITIONS)])
def test_one_graph_and_the_same_numbers(name: str, masked: bool) -> None:
    network = encoder(pooling=MeanPooling(), num_layers=1, **POSITIONS[name])  # tracing takes its time
    token_mask = torch.arange(24) < torch.tensor([24, 9])[:, None] if masked else None
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)
    results = []
    for call in (compiled, network):
        network.zero_grad()
        pooled = call(ids(), token_mask=token_mask)
        pooled.square().sum().backward()
        results.append(
            [pooled.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
        )
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)


def test_counts_equal_measurement() -> None:
    network = encoder(attention=GroupedQueryAttention(4, 2, kernel="reference"))
    with FlopCounterMode(display=False) as counter:
        network(ids(3, 16)).sum().backward()
    assert counter.get_total_flops() == network.flops_per_token(16) * 3 * 16
    assert network.num_parameters() == sum(p.numel() for p in network.parameters())


def test_roles_cover_every_parameter() -> None:
    roles = parameter_role(encoder(input_position=LearnedPosition()))
    assert set(roles.values()) == {"embedding", "hidden", "vector"}


def test_an_embedding_without_a_head_is_not_filled_like_a_head() -> None:
    torch.manual_seed(0)
    network = EncoderConfig(initialization=ZeroOutputInitialization(embedding_std=0.8)).build(500)
    assert network.embedding.weight.std().item() == pytest.approx(0.8, rel=0.05)


def test_meta_device_then_weights() -> None:
    with torch.device("meta"):
        empty = encoder(pooling=MeanPooling()).config.build(VOCABULARY)
    empty = empty.to_empty(device="cpu").double().eval()
    full = encoder(pooling=MeanPooling())
    empty.load_state_dict(full.state_dict())
    torch.testing.assert_close(empty(ids()), full(ids()))


def test_configuration_survives_json() -> None:
    config = encoder(pooling=LastTokenPooling(), block=PostNorm()).config
    assert component_from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (
            lambda: EncoderConfig(attention=GroupedQueryAttention(4, position=Alibi())),
            "position=Alibi: in an encoder",
        ),
        (
            lambda: EncoderConfig(attention=GroupedQueryAttention(4, position=RelativeBias())),
            "position=RelativeBias: in an encoder",
        ),
        (lambda: EncoderConfig(attention=GatedDeltaNet()), "attention=GatedDeltaNet"),
        (
            lambda: EncoderConfig(attention=LayerPattern((GroupedQueryAttention(4), GatedDeltaNet()))),
            "attention=",
        ),
        (lambda: EncoderConfig(hidden_size=30), "num_heads=4"),
        (lambda: EncoderConfig(num_layers=0), "num_layers=0"),
        (lambda: EncoderConfig(dropout=1.0), r"dropout=1\.0"),
        (lambda: EncoderConfig(embedding_scale=0.0), r"embedding_scale=0\.0"),
        (lambda: EncoderConfig().build(0), "vocabulary_size=0"),
    ],
)
def test_mistakes_are_named(build: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        build()
    assert caught.value.remedy


def test_wrong_inputs_are_named() -> None:
    network = encoder(
        attention=GroupedQueryAttention(4, position=NoPosition()), input_position=LearnedPosition()
    )
    mask = torch.ones(2, 24, dtype=torch.bool)
    with pytest.raises(ConfigError, match="input_ids is"):
        network(torch.zeros(3))
    with pytest.raises(ConfigError, match="there is no token"):
        network(torch.zeros(0, 4, dtype=torch.int64))
    with pytest.raises(ConfigError, match="token_mask has shape"):
        network(ids(), token_mask=mask[:1])
    with pytest.raises(ConfigError, match=r"token_mask is torch\.int64"):
        network(ids(), token_mask=mask.long())
    with pytest.raises(ConfigError, match="token_mask with document_ids"):
        network(ids(), token_mask=mask, document_ids=torch.zeros_like(ids()))
    with pytest.raises(ConfigError, match="position_ids has shape"):
        network(ids(), position_ids=torch.arange(24))
    with pytest.raises(ConfigError, match="position 64"):
        network(ids(1, 65))
    with pytest.raises(ConfigError, match="token id 50"):
        network(ids() + 50 - ids())
    with pytest.raises(ConfigError, match="document_ids with pooling"):
        encoder(pooling=MeanPooling())(ids(), document_ids=torch.zeros_like(ids()))


def test_rope_depends_on_distances_only() -> None:
    network = encoder(attention=GroupedQueryAttention(4, position=Rope()))
    positions = torch.arange(24)[None].expand(2, -1)
    torch.testing.assert_close(network(ids(), position_ids=positions + 30), network(ids()))
