"""The encoder-decoder: what reaches what, padding, shared matrices, counts, compiling, what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shaken_networks import build_shaken
from torch._dynamo.utils import counters
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from insight.models import (
    MLP,
    ActivationCheckpointing,
    Alibi,
    BlockLayout,
    BranchNorm,
    CallContext,
    DecoderConfig,
    DifferentialAttention,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderStates,
    GatedDeltaNet,
    GroupedQueryAttention,
    LayerNorm,
    LayerPattern,
    LearnedPosition,
    MeanPooling,
    NoPosition,
    PostNorm,
    PreNorm,
    RelativeBias,
    SandwichNorm,
    SinusoidalPosition,
    muon_splits,
    parameter_role,
)
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError

VOCABULARY = 50
HEADS = GroupedQueryAttention(4, 2)
CROSS = GroupedQueryAttention(4, 2, position=NoPosition())
SMALL = {"hidden_size": 32, "num_layers": 2, "max_sequence_length": 64}


def config(
    encoder: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None, **options: Any
) -> EncoderDecoderConfig:
    halves: dict[str, Any] = {"attention": HEADS} | SMALL
    settings: dict[str, Any] = {"cross_attention": CROSS} | options
    return EncoderDecoderConfig(
        EncoderConfig(**(halves | (encoder or {}))), DecoderConfig(**(halves | (decoder or {}))), **settings
    )


VARIANTS: dict[str, EncoderDecoderConfig] = {
    "llama": config(),
    "t5": config(
        {"attention": replace(HEADS, position=RelativeBias(8, 20, bidirectional=True), score_scale=1.0)},
        {
            "attention": replace(HEADS, position=RelativeBias(8, 20), score_scale=1.0),
            "tie_embeddings": True,
            "output_scale": 32**-0.5,
        },
        share_embeddings=True,
    ),
    "marian": config(
        *(
            {
                "attention": replace(CROSS, qkv_bias=True, output_bias=True),
                "feed_forward": MLP(48, activation="silu", bias=True),
                "norm": LayerNorm(),
                "block": PostNorm(),
                "input_position": SinusoidalPosition(in_turn=False),
                "embedding_scale": 32**0.5,
            },
        )
        * 2,
        share_embeddings=True,
        logit_bias=True,
    ),
    "windows": config({"attention": replace(HEADS, window=4)}, {"attention": replace(HEADS, window=5)}),
    "hybrid decoder": config(decoder={"attention": LayerPattern((GatedDeltaNet(2), HEADS))}),
    "alibi": config(
        {"attention": replace(HEADS, position=Alibi(bidirectional=True))},
        {"attention": replace(HEADS, position=Alibi())},
        cross_attention=replace(CROSS, position=Alibi(bidirectional=True)),
    ),
    "differential": config(cross_attention=DifferentialAttention(4, 2, position=NoPosition())),
    "sandwich": config(decoder={"block": SandwichNorm()}),
    "branch": config(decoder={"block": BranchNorm()}),
    "sizes of their own": config({"hidden_size": 24, "num_layers": 1}),
    "learned": config(*({"attention": CROSS, "input_position": LearnedPosition(std=0.3)},) * 2),
}


def build(shape: EncoderDecoderConfig, source_vocabulary_size: int | None = None) -> EncoderDecoder:
    sizes = (VOCABULARY,) if source_vocabulary_size is None else (VOCABULARY, source_vocabulary_size)
    network: EncoderDecoder = build_shaken(shape, *sizes, noise=0.1).eval()
    return network


def source(batch: int = 3, length: int = 13) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


def target(batch: int = 3, length: int = 9) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(2))


LENGTHS = [13, 5, 1]
MASK = torch.arange(13) < torch.tensor(LENGTHS)[:, None]


@pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_source_token_reaches_every_target_token(shape: EncoderDecoderConfig) -> None:
    network, changed = build(shape), source(1)
    before = network(source(1), target(1))
    changed[0, 12] = (changed[0, 12] + 1) % VOCABULARY
    assert not torch.isclose(network(changed, target(1)), before).all(dim=-1).any()


@pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_future_of_the_target_never_reaches_its_past(shape: EncoderDecoderConfig) -> None:
    network, changed = build(shape), target()
    before = network(source(), changed)
    changed[:, 6:] = (changed[:, 6:] + 1) % VOCABULARY
    after = network(source(), changed)
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=1e-12, atol=1e-12)
    assert not torch.isclose(after[:, 6:], before[:, 6:]).all(dim=-1).any()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS.keys())
def test_padded_sources_equal_single_ones(shape: EncoderDecoderConfig, side: str) -> None:
    network, noise = build(shape), source().flip(0)
    mask = MASK if side == "right" else MASK.flip(1)
    texts = [source()[row : row + 1, :length] for row, length in enumerate(LENGTHS)]
    batch = noise.masked_scatter(mask, torch.cat(texts, dim=1))
    together = network(batch, target(), source_mask=mask)
    for row, text in enumerate(texts):
        alone = network(text, target()[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_targets_equal_single_ones(side: str) -> None:
    network, lengths = build(VARIANTS["learned"]), [9, 4, 1]
    kept = torch.arange(9) < torch.tensor(lengths)[:, None]
    kept = kept if side == "right" else kept.flip(1)
    texts = [target()[row : row + 1, :length] for row, length in enumerate(lengths)]
    batch = target().flip(0).masked_scatter(kept, torch.cat(texts, dim=1))
    arguments: dict[str, Any] = {}
    if side == "left":
        arguments["target_document_ids"] = kept.long()
        arguments["target_position_ids"] = (kept.cumsum(dim=1) - 1).clamp_min(0)
    together = network(source(), batch, **arguments)
    for row, text in enumerate(texts):
        alone = network(source()[row : row + 1], text)
        torch.testing.assert_close(together[row, kept[row]], alone[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS.keys())
def test_an_empty_source_is_finite_and_every_parameter_learns(shape: EncoderDecoderConfig) -> None:
    network, mask = build(shape), MASK.clone()
    mask[1] = False
    scores = network.logits(network(source(), target(), source_mask=mask))
    scores.logsumexp(dim=-1).sum().backward()
    assert scores.isfinite().all()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS.keys())
def test_decoding_token_by_token_equals_one_pass(shape: EncoderDecoderConfig) -> None:
    network = build(shape)
    with torch.no_grad():
        whole = network(source(), target(), source_mask=MASK)
        cache = network.make_cache(network.encode(source(), source_mask=MASK))
        steps = [network.decode(token, cache=cache) for token in target().split(1, dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("layout", [PreNorm(), PostNorm(), BranchNorm(), SandwichNorm()])
def test_layouts_by_the_formula(layout: BlockLayout) -> None:
    network = build(config(decoder={"block": layout, "norm": LayerNorm()}))
    block: Any = network.decoder.blocks[0]
    memory = network.encode(source())
    x = torch.randn(3, 9, 32, dtype=torch.float64)
    positions = torch.arange(9)
    from insight.models import CausalMask

    tables = block.attention.position.tables(positions)
    cross_context = CallContext(memory.mask, encoder_states=memory)
    branches = (
        ("attention", lambda h: block.attention(h, CallContext(CausalMask(), tables))),
        (
            "cross_attention",
            lambda h: block.cross_attention(h, cross_context),
        ),
        ("feed_forward", block.feed_forward),
    )
    expected = x
    for name, branch in branches:
        norm = getattr(block, f"{name}_norm")
        if isinstance(layout, PreNorm):
            expected = expected + branch(norm(expected))
        elif isinstance(layout, PostNorm):
            expected = norm(expected + branch(expected))
        elif isinstance(layout, BranchNorm):
            expected = expected + norm(branch(expected))
        else:
            expected = expected + getattr(block, f"{name}_output_norm")(branch(norm(expected)))
    found = block(x, CallContext(CausalMask(), tables, encoder_states=memory))
    torch.testing.assert_close(found, expected)


def test_gradients_are_those_of_the_function() -> None:
    tiny = {"hidden_size": 8, "num_layers": 1, "attention": GroupedQueryAttention(2)}
    cross = GroupedQueryAttention(2, 1, position=NoPosition())
    network = build(config(tiny, tiny, cross_attention=cross))
    states = network.encode(source(2, 4)).states.detach().requires_grad_()

    def call(states: torch.Tensor) -> torch.Tensor:
        return network.decode(target(2, 3), EncoderStates(states))

    assert gradcheck(call, (states,))


@pytest.mark.parametrize(("shared", "tied"), [(True, True), (True, False), (False, True), (False, False)])
def test_shared_matrices_are_one(shared: bool, tied: bool) -> None:
    network = build(config(decoder={"tie_embeddings": tied}, share_embeddings=shared))
    assert (network.encoder.embedding is network.decoder.embedding) == shared
    assert (network.decoder.head is None) == tied
    matrices = 3 - shared - tied
    inside = sum(
        p.numel() for name, p in network.named_parameters() if "embedding" not in name and "head" not in name
    )
    assert network.num_parameters() == inside + matrices * VOCABULARY * 32


@pytest.mark.parametrize("name", ["t5", "marian", "llama"])
def test_state_dict_round_trip_keeps_shared_storage(name: str, tmp_path: Any) -> None:
    network, path = build(VARIANTS[name]), tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    with torch.device("meta"):
        empty = VARIANTS[name].build(VOCABULARY)
    twin = empty.to_empty(device="cpu").double().eval()
    twin.load_state_dict(torch.load(path, weights_only=True))
    expected = network.logits(network(source(), target(), source_mask=MASK))
    torch.testing.assert_close(twin.logits(twin(source(), target(), source_mask=MASK)), expected)
    shared = VARIANTS[name].share_embeddings
    same = twin.encoder.embedding.weight.data_ptr() == twin.decoder.embedding.weight.data_ptr()
    assert same == shared
    assert twin.num_parameters() == network.num_parameters()


@pytest.mark.parametrize("name", ["t5", "marian", "llama"])
def test_the_same_first_values_by_way_of_the_meta_device(name: str) -> None:
    torch.manual_seed(5)
    direct = VARIANTS[name].build(VOCABULARY)
    with torch.device("meta"):
        empty = VARIANTS[name].build(VOCABULARY)
    torch.manual_seed(5)
    later = empty.to_empty(device="cpu")
    later.initialize()
    for (key, expected), found in zip(direct.state_dict().items(), later.state_dict().values(), strict=True):
        assert torch.equal(found, expected), key


def test_matrices_that_write_to_the_stream_are_scaled_by_all_its_branches() -> None:
    torch.manual_seed(0)
    wide = {"hidden_size": 256, "num_layers": 6}
    network = config(wide, wide).build(VOCABULARY)
    for half, branches in ((network.encoder, 2), (network.decoder, 3)):
        block: Any = half.blocks[0]
        expected = pytest.approx(0.02 / (6 * branches) ** 0.5, rel=0.1)
        assert block.attention.output.weight.std().item() == expected


def test_vocabularies_may_differ() -> None:
    network = build(config(), source_vocabulary_size=70)
    assert network.encoder.embedding.weight.shape == (70, 32)
    assert network.logits(network(source() + 20, target())).shape == (3, 9, VOCABULARY)
    with pytest.raises(ConfigError) as error:
        config(share_embeddings=True).build(VOCABULARY, 70)
    assert (error.value.option, error.value.value) == ("source_vocabulary_size", 70)
    with pytest.raises(ConfigError, match="token id 69: the vocabulary has 50 tokens"):
        build(config())(source(1) * 0 + 69, target(1))


def test_the_bias_of_scores_is_added() -> None:
    network = build(config(logit_bias=True))
    hidden = network(source(), target())
    assert network.logit_bias is not None
    torch.testing.assert_close(network.logits(hidden), network.decoder.logits(hidden) + network.logit_bias)


def test_the_hidden_states_are_scaled_before_the_head() -> None:
    scaled, plain = build(config(decoder={"output_scale": 0.25})), build(config())
    torch.testing.assert_close(scaled(source(), target()), 0.25 * plain(source(), target()))


def test_counts_equal_measurement() -> None:
    plain = [replace(attention, kernel="reference") for attention in (HEADS, CROSS)]
    shape = config({"attention": plain[0]}, {"attention": plain[0]}, cross_attention=plain[1])
    network = build(shape).float()
    with FlopCounterMode(display=False) as counter:
        network.logits(network(source(), target())).sum().backward()
    assert counter.get_total_flops() == 3 * network.flops_per_pair(13, 9)


def test_roles_and_splits_cover_every_parameter() -> None:
    network = build(VARIANTS["marian"])
    roles = parameter_role(network)
    assert set(roles) == {name for name, _ in network.named_parameters()}
    assert roles["encoder.embedding.weight"] == "embedding"
    assert roles["logit_bias"] == "vector"
    assert roles["decoder.blocks.0.cross_attention.query.weight"] == "hidden"
    splits = muon_splits(network)
    assert splits["decoder.blocks.0.cross_attention.key_value.weight"] == (16, 16)
    assert "decoder.blocks.0.cross_attention.query.weight" not in splits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "masked"), [("llama", False), *((name, True) for name in VARIANTS if name != "hybrid decoder")]
)
def test_one_graph_and_the_same_numbers(name: str, masked: bool) -> None:
    shape, mask = VARIANTS[name], MASK if masked else None
    # One layer each: tracing takes its time.
    encoder, decoder = (replace(half, num_layers=1) for half in (shape.encoder, shape.decoder))
    network = build(replace(shape, encoder=encoder, decoder=decoder))
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)
    results = []
    for call in (compiled, network):
        network.zero_grad()
        hidden = call(source(), target(), source_mask=mask)
        hidden.square().sum().backward()
        gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        results.append([hidden.detach(), *gradients])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 1e-6 * expected.norm().clamp_min(1e-6)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("part", ["block", "attention"])
def test_checkpointing_changes_no_number(part: Any) -> None:
    results = []
    for checkpointing in (None, ActivationCheckpointing(part)):
        half = {"activation_checkpointing": checkpointing, "dropout": 0.2}
        network = build(config(half, half)).train()
        torch.manual_seed(3)
        hidden = network(source(), target(), source_mask=MASK)
        hidden.square().sum().backward()
        results.append([hidden.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_trains_in_every_dtype(dtype: torch.dtype) -> None:
    network = build(VARIANTS["llama"]).to(dtype).train()
    network.logits(network(source(), target(), source_mask=MASK)).float().logsumexp(-1).mean().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()


def test_training_in_bfloat16_stays_near_float32() -> None:
    network = build(VARIANTS["llama"]).float().train()
    exact = network(source(), target(), source_mask=MASK)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(source(), target(), source_mask=MASK)
    assert (half.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS.keys())
def test_configuration_survives_json(shape: EncoderDecoderConfig) -> None:
    assert component_from_dict(shape.to_dict()) == shape


@pytest.mark.parametrize(
    ("build_it", "named"),
    [
        (lambda: config({"pooling": MeanPooling()}), r"encoder\.pooling=MeanPooling"),
        (
            lambda: config({"hidden_size": 24}, share_embeddings=True),
            r"share_embeddings=True",
        ),
        (lambda: config(decoder={"logit_soft_cap": 9.0}, logit_bias=True), r"decoder\.logit_soft_cap=9\.0"),
        (lambda: config(decoder={"output_scale": 0.0}), r"output_scale=0\.0"),
        (lambda: config().build(0), "vocabulary_size=0"),
        (lambda: config().build(5, 0), "vocabulary_size=0"),
        (lambda: build(config())(source()[0], target()), "input_ids is"),
        (lambda: build(config())(source(), target()[:2]), "encoder_states has 3 rows, the target 2"),
        (lambda: build(config())(source(), target()[:, :0]), "there is no token"),
        (lambda: build(config())(source(), target(), source_mask=MASK[:2]), "token_mask has shape"),
        (lambda: build(config())(source(), target().float()), r"input_ids is torch\.float32"),
        (
            lambda: build(config()).make_cache(EncoderStates(torch.zeros(2, 3, 32)), max_length=0),
            "max_length=0",
        ),
    ],
)
def test_mistakes_are_named(build_it: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        build_it()
    assert caught.value.remedy


def test_a_full_cache_is_named() -> None:
    network = build(config())
    with torch.no_grad():
        cache = network.make_cache(network.encode(source()), max_length=8)
        with pytest.raises(ConfigError, match="exceed max_length=8"):
            network.decode(target(), cache=cache)


def test_the_example_of_the_docs_works() -> None:
    page = (Path(__file__).parents[2] / "docs" / "attention.md").read_text(encoding="utf-8")
    section = page[page.index("## Encoders and cross-attention") :]
    code = re.search(r"```python\n(.*?)```", section, re.S)
    assert code is not None
    names: dict[str, Any] = {"vocabulary_size": VOCABULARY, "input_ids": source(), "token_mask": MASK}
    names |= {
        "source_ids": source(),
        "source_mask": MASK,
        "target_ids": target(),
        "next_ids": target()[:, :1],
    }
    exec(code.group(1), names)
    assert names["vectors"].shape == (3, 256)
    assert names["logits"].shape == (3, 1, VOCABULARY)
