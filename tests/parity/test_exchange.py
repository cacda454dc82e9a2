"""Folders of Hugging Face against transformers: every architecture in and out, with the same numbers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, CONTEXT, VOCABULARY, Architecture
from test_published_configurations import PUBLISHED, theirs

from insight.data.tokenizers import WordTokenizer, WordTokenizerConfig
from insight.interchange.config_fields import Fields
from insight.interchange.families import FAMILIES, express
from insight.interchange.family import canonical
from insight.interchange.foreign_model import OutgoingModel
from insight.interchange.huggingface import described_network, read_network, write_huggingface
from insight.interchange.llama import LLAMA
from insight.interchange.name_map import NameMap, Rows
from insight.interchange.transformers_network import TransformersNetwork
from insight.models import (
    MLP,
    PRESETS,
    Decoder,
    DecoderConfig,
    GatedDeltaNet,
    GroupedQueryAttention,
    LayerNorm,
    RMSNorm,
    SwiGLU,
)
from insight.runtime.errors import CheckpointError, ConfigError

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-5
# No family says the same: its positions depend on the length, or transformers scales other layers.
NOT_WRITTEN = {"phi3, long": "always_long", "olmo3": "scaling"}


def tokenizer() -> WordTokenizer:
    """A tokenizer with as many tokens as the networks have."""
    words = " ".join(f"w{number}" for number in range(2 * VOCABULARY))
    return WordTokenizerConfig(vocabulary_size=VOCABULARY, min_frequency=1).build([words])


@pytest.fixture(scope="module")
def words() -> WordTokenizer:
    return tokenizer()


def ids(rows: int = 2, length: int = 29) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def write(config: DecoderConfig, network: Decoder, words: WordTokenizer, folder: Path) -> Path:
    folder.mkdir()
    outgoing = OutgoingModel(config, words, network.state_dict())
    write_huggingface(outgoing, express(config, VOCABULARY), folder)
    return folder


@pytest.fixture(scope="module", params=ARCHITECTURES.keys())
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Architecture, Any, Decoder, Path]:
    """Their network, ours with the same numbers, and what their library saved."""
    architecture = ARCHITECTURES[request.param]()
    theirs, ours = architecture.build()
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return request.param, architecture, theirs, ours, folder


@pytest.mark.slow
def test_what_transformers_saves_is_read(saved: tuple[str, Architecture, Any, Decoder, Path]) -> None:
    name, architecture, _, ours, folder = saved
    network = read_network(folder)
    read = dict(network.tensors())
    assert list(read) == list(ours.state_dict())
    for key, expected in ours.state_dict().items():
        assert torch.equal(read[key], expected), key
    # The same network to the last option: the logits are then those of test_presets.
    expected = canonical(architecture.config())
    found = replace(canonical(network.config), max_sequence_length=expected.max_sequence_length)
    if name != "phi3, long":
        assert found == expected


@pytest.mark.slow
def test_transformers_reads_what_is_written(
    saved: tuple[str, Architecture, Any, Decoder, Path], words: WordTokenizer, tmp_path: Path
) -> None:
    name, architecture, _, ours, _ = saved
    if name in NOT_WRITTEN:
        with pytest.raises(ConfigError, match=NOT_WRITTEN[name]):
            express(architecture.config(), VOCABULARY)
        return
    folder = write(architecture.config(), ours, words, tmp_path / "ours")
    theirs = TransformersNetwork(folder)
    with torch.no_grad():
        assert (theirs(ids()) - ours.logits(ours(ids()))).abs().max() <= TOLERANCE
        cache, chosen, texts = ours.make_cache(2), ids(2, 9), []
        for _ in range(12):
            chosen = ours.logits(ours(chosen, cache=cache)[:, -1:]).argmax(-1)
            texts.append(chosen)
    assert torch.equal(theirs.continue_greedily(ids(2, 9), 12), torch.cat(texts, dim=1))
    back = dict(read_network(folder).tensors())
    assert all(torch.equal(back[key], tensor) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_are_read(name: str) -> None:
    published = json.loads(theirs(name).to_json_string())
    found = FAMILIES[published["model_type"]].read(Fields(published))
    expected = PRESETS[name].config
    assert isinstance(expected, DecoderConfig)
    for key, value in canonical(expected).to_dict()["init_args"].items():
        assert canonical(found).to_dict()["init_args"][key] == value, key
    if name == "olmo-3-7b":
        with pytest.raises(ConfigError, match="scaling"):
            express(expected, PRESETS[name].vocabulary_size)
    else:
        again = express(expected, PRESETS[name].vocabulary_size)
        assert (again.family.model_type == published["model_type"]) or name == "phi-3-mini"  # a Mistral too


def llama(num_heads: int, num_keys: int, tied: bool) -> tuple[DecoderConfig, Decoder]:
    attention = GroupedQueryAttention(num_heads, num_keys)
    config = DecoderConfig(36, 2, attention, SwiGLU(40), RMSNorm(), CONTEXT, tie_embeddings=tied)
    torch.manual_seed(0)
    network = config.build(VOCABULARY).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return config, network


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("num_heads", "num_keys"), [(6, 2), (9, 3)])
def test_grouped_queries(
    num_heads: int, num_keys: int, tied: bool, words: WordTokenizer, tmp_path: Path
) -> None:
    config, ours = llama(num_heads, num_keys, tied)
    theirs = TransformersNetwork(write(config, ours, words, tmp_path / "ours"))
    with torch.no_grad():
        expected = ours.logits(ours(ids()))
        assert (theirs(ids()) - expected).abs().max() <= TOLERANCE
    theirs.network.save_pretrained(tmp_path / "sharded", max_shard_size="12KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    read = read_network(tmp_path / "sharded")
    assert read.config.tie_embeddings == tied
    again = read.config.build(VOCABULARY).eval()
    again.load_state_dict(dict(read.tensors()))
    with torch.no_grad():
        assert (again.logits(again(ids())) - expected).abs().max() <= TOLERANCE


def test_a_wrong_permutation_is_noticed(
    words: WordTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_groups(tensor: torch.Tensor) -> torch.Tensor:
        """Heads in the order that a mix-up of groups and heads gives; 4 and 2 heads would hide it."""
        queries, rest = tensor.split([36, tensor.shape[0] - 36])
        mixed = queries.reshape(2, 3, 6, -1).transpose(0, 1).reshape(36, *queries.shape[1:])
        return torch.cat([mixed, rest])

    names = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")
    wrong = Rows(*names, rearrange=by_groups, restore=by_groups)
    block = {**LLAMA.block, "attention.query_key_value.weight": wrong}
    family = replace(FAMILIES["llama"], names=lambda config: NameMap(LLAMA.top, block))
    monkeypatch.setitem(FAMILIES, "llama", family)
    config, ours = llama(6, 2, True)
    theirs = TransformersNetwork(write(config, ours, words, tmp_path / "ours"))
    with torch.no_grad():
        assert (theirs(ids()) - ours.logits(ours(ids()))).abs().max() > 100 * TOLERANCE


def test_what_is_missing_is_written_neutrally(words: WordTokenizer, tmp_path: Path) -> None:
    # No factors, no biases, weightless norms of queries and keys: Qwen 3 with ones, GPT-2 with zeros.
    plain = DecoderConfig(
        hidden_size=36,
        num_layers=2,
        attention=GroupedQueryAttention(6, 2, qk_norm="rms_weightless"),
        norm=RMSNorm(weight=False),
        max_sequence_length=CONTEXT,
    )
    gpt = ARCHITECTURES["gpt2"]().config()
    bare = replace(
        gpt,
        attention=replace(gpt.attention, qkv_bias=False, output_bias=False),
        feed_forward=MLP(80, "gelu_tanh"),
        norm=LayerNorm(bias=False),
    )
    for config, expected in ((plain, "Qwen3ForCausalLM"), (bare, "GPT2LMHeadModel")):
        torch.manual_seed(0)
        ours = config.build(VOCABULARY).eval()
        theirs = TransformersNetwork(write(config, ours, words, tmp_path / expected))
        assert theirs.name == expected
        with torch.no_grad():
            assert (theirs(ids()) - ours.logits(ours(ids()))).abs().max() <= TOLERANCE


def test_a_network_that_no_family_has_is_refused() -> None:
    gated = DecoderConfig(attention=GroupedQueryAttention(output_gate=True))
    with pytest.raises(ConfigError, match=r"nearest is LlamaForCausalLM.*output_gate=False") as raised:
        express(gated, VOCABULARY)
    assert raised.value.option == "model.network.attention.output_gate"
    with pytest.raises(ConfigError) as raised:
        express(DecoderConfig(attention=GatedDeltaNet()), VOCABULARY)
    assert raised.value.option == "model.network.attention"
    # Two epsilons cannot both be the one of the file.
    norms = DecoderConfig(attention=GroupedQueryAttention(qk_norm="rms"), norm=RMSNorm(1e-3))
    with pytest.raises(ConfigError, match="eps"):
        express(norms, VOCABULARY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, words: WordTokenizer) -> Path:
    return write(*llama(6, 2, False), words, tmp_path_factory.mktemp("good") / "model")


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown architecture": ({"model_type": "lama"}, "did you mean 'llama'"),
    "another word for it": ({"model_type": 3}, "unknown to Insight"),
    "images": ({"model_type": "llava", "vision_config": {}}, "text alone"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantized"),
    "an unknown scaling": ({"rope_parameters": {"rope_type": "spiral", "factor": 2.0}}, "spiral.*known: "),
    "an unknown older scaling": (
        {"rope_parameters": None, "rope_scaling": {"type": "spiral", "factor": 2.0}},
        "spiral.*known: ",
    ),
    "a scaling that is no object": ({"rope_parameters": 3}, "is no object"),
    "a size that is text": ({"hidden_size": "36"}, "hidden_size=36: is no whole number"),
    "a negative size": ({"num_hidden_layers": -1}, "num_hidden_layers"),
    "no size": ({"hidden_size": None}, "hidden_size"),
    "a huge vocabulary": ({"vocab_size": 10**15}, "vocab_size"),
    "an infinite number": ({"rms_norm_eps": 1e999}, "rms_norm_eps"),
    "another activation": ({"hidden_act": "mish"}, "hidden_act=mish"),
    "heads that do not divide": ({"num_key_value_heads": 4}, "num_key_value_heads"),
    "another size": ({"intermediate_size": 41}, r"gate_proj.weight has shape \(40, 36\), not \(41, 36\)"),
    "more rows": ({"vocab_size": VOCABULARY + 1}, r"embed_tokens.weight has shape"),
    "another number of layers": ({"num_hidden_layers": 3}, "lacks the tensor model.layers.2"),
    "fewer layers": ({"num_hidden_layers": 1}, "holds model.layers.1.*does not have"),
    "biases": ({"attention_bias": True}, "lacks the tensor model.layers.0.self_attn.q_proj.bias"),
}


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES.keys())
def test_bad_configurations_are_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).hardlink_to(file)
    values = json.loads((folder / "config.json").read_text()) | change
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=named) as raised:
        read_network(tmp_path)
    assert len(str(raised.value).splitlines()) == 1


HOSTILE_VALUES = (None, -1, 0, 10**30, 1e999, 0.5, True, "x", [1, "x"], {"x": 1}, {"full_attention": 3})
# Another family says the same of the small network of these.
STAND_INS = {"phi3": "llama2", "olmo3": "olmo2"}


@pytest.mark.slow
def test_no_value_of_an_entry_ends_in_a_traceback() -> None:
    configs = {}
    for name, make in ARCHITECTURES.items():
        config = make().config()
        if name not in NOT_WRITTEN:
            configs[express(config, VOCABULARY).family.model_type] = config
    configs |= {model_type: ARCHITECTURES[name]().config() for model_type, name in STAND_INS.items()}
    assert configs.keys() == FAMILIES.keys()
    values = itertools.cycle(HOSTILE_VALUES)  # each entry meets one of them in some family
    num_refused = 0
    for model_type, family in FAMILIES.items():
        good = family.write(canonical(configs[model_type]), VOCABULARY)
        described_network(Fields(good))
        for key in good:
            try:
                described_network(Fields(good | {key: next(values)}))
            except CheckpointError:
                num_refused += 1
    assert num_refused > 100


def test_older_words_for_positions(folder: Path, tmp_path: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values["rope_parameters"]
    values |= {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    for file in folder.iterdir():
        (tmp_path / file.name).hardlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(values))
    position: Any = read_network(tmp_path).config.attention.position  # type: ignore[attr-defined]
    reference = transformers.AutoConfig.from_pretrained(tmp_path).rope_parameters
    assert (
        (position.base, position.scaling.factor) == (reference["rope_theta"], reference["factor"]) == (5e5, 2)
    )


def test_files_without_the_name_of_the_part(tmp_path: Path) -> None:
    # GPT-2 was published so, with its masks beside the weights.
    from safetensors.torch import load_file, save_file

    theirs, ours = ARCHITECTURES["gpt2"]().build()
    theirs.save_pretrained(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in found.items()}
    bare |= {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(bare, tmp_path / "model.safetensors")
    read = dict(read_network(tmp_path).tensors())
    assert all(torch.equal(read[name], tensor) for name, tensor in ours.state_dict().items())
    save_file(bare | {"h.0.attn.extra": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds transformer\.h\.0\.attn\.extra"):
        read_network(tmp_path)
