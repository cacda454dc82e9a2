"""T5 and Marian against transformers: logits, gradients, decoding with a cache, padding; published sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from insight.interchange.encoder_decoders import MARIAN, T5
from insight.interchange.name_map import EncoderDecoderNames
from insight.models import PRESETS, EncoderDecoder, EncoderDecoderConfig

transformers = pytest.importorskip("transformers")

VOCABULARY, HIDDEN, HEADS, HEAD_DIM, INTERMEDIATE = 61, 48, 4, 12, 80
LAYERS, DECODER_LAYERS = 3, 2
LOGITS_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Pair:
    """One pair of networks.

    Args:
        preset: Name of ours.
        names: From their tensors to ours.
        theirs: Makes their small configuration.
        published: Makes their published one.
    """

    preset: str
    names: EncoderDecoderNames
    theirs: Callable[[], Any]
    published: Callable[[], Any]

    def config(self) -> EncoderDecoderConfig:
        """Ours in the sizes of this file."""
        preset: Any = PRESETS[self.preset].config
        sizes = {"num_heads": HEADS, "head_dim": HEAD_DIM}
        parts = {}
        for part, num_layers in (("encoder", LAYERS), ("decoder", DECODER_LAYERS)):
            config = getattr(preset, part)
            changes: dict[str, Any] = {
                "hidden_size": HIDDEN,
                "num_layers": num_layers,
                "attention": replace(config.attention, **sizes),
                "feed_forward": replace(config.feed_forward, intermediate_size=INTERMEDIATE),
            }
            if config.embedding_scale is not None:
                changes["embedding_scale"] = HIDDEN**0.5
            if part == "decoder" and config.output_scale is not None:
                changes["output_scale"] = HIDDEN**-0.5
            parts[part] = replace(config, **changes)
        config = replace(preset, cross_attention=replace(preset.cross_attention, **sizes), **parts)
        assert isinstance(config, EncoderDecoderConfig)
        return config

    def build(self) -> tuple[Any, EncoderDecoder]:
        """Their network with random weights, and ours with the same."""
        torch.manual_seed(0)
        theirs = transformers.AutoModelForSeq2SeqLM.from_config(self.theirs()).eval()
        if self.config().decoder.tie_embeddings is False:
            # They tie the head of 1.1 on building; its checkpoints have one of their own.
            theirs.lm_head.weight = nn.Parameter(torch.zeros(VOCABULARY, HIDDEN))
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.requires_grad:  # not the table of sines
                    parameter.add_(0.1 * torch.randn_like(parameter))
            if hasattr(theirs, "final_logits_bias"):
                theirs.final_logits_bias.normal_()
                theirs.final_logits_bias.requires_grad_()
        ours = self.config().build(VOCABULARY)
        ours.load_state_dict(self.convert(theirs.state_dict()))
        return theirs, ours.eval()

    def convert(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Their tensors under our names, a tied head left out."""
        tied = self.config().decoder.tie_embeddings
        kept = {name: x for name, x in tensors.items() if not (tied and name == "lm_head.weight")}
        return self.names.convert(kept, LAYERS, DECODER_LAYERS)


def _t5(**options: Any) -> Any:
    return transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=HIDDEN,
        d_kv=HEAD_DIM,
        d_ff=INTERMEDIATE,
        num_layers=LAYERS,
        num_decoder_layers=DECODER_LAYERS,
        num_heads=HEADS,
        attn_implementation="eager",
        **options,
    )


_T5_V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_MARIAN: dict[str, Any] = {
    "activation_function": "swish",
    "scale_embedding": True,
    "max_position_embeddings": 512,
}


def _marian() -> Any:
    return transformers.MarianConfig(
        vocab_size=VOCABULARY,
        d_model=HIDDEN,
        encoder_layers=LAYERS,
        decoder_layers=DECODER_LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=INTERMEDIATE,
        decoder_ffn_dim=INTERMEDIATE,
        pad_token_id=0,
        decoder_start_token_id=0,
        attn_implementation="eager",
        **_MARIAN,
    )


def _published_marian() -> Any:
    halves = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}.items()
    }
    return transformers.MarianConfig(vocab_size=58101, d_model=512, **halves, **_MARIAN)


PAIRS = {
    "t5": Pair("t5-small", T5, _t5, transformers.T5Config),
    "t5 1.1": Pair(
        "t5-v1.1-small",
        T5,
        lambda: _t5(**_T5_V11),
        lambda: transformers.T5Config(d_ff=1024, num_layers=8, num_heads=6, **_T5_V11),
    ),
    "marian": Pair("opus-mt-en-de", MARIAN, _marian, _published_marian),
}


@pytest.fixture(scope="module", params=PAIRS.values(), ids=PAIRS.keys())
def networks(request: pytest.FixtureRequest) -> tuple[Pair, Any, EncoderDecoder]:
    pair: Pair = request.param
    return pair, *pair.build()


def sources() -> torch.Tensor:
    # Not 0: their embedding has no gradient for the token of padding.
    return torch.randint(1, VOCABULARY, (3, 37), generator=torch.Generator().manual_seed(1))


def targets() -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (3, 23), generator=torch.Generator().manual_seed(2))


def source_mask() -> torch.Tensor:
    return torch.arange(37) < torch.tensor([37, 20, 3])[:, None]


def their_logits(theirs: Any) -> torch.Tensor:
    logits: torch.Tensor = theirs(
        input_ids=sources(), attention_mask=source_mask().long(), decoder_input_ids=targets(), use_cache=False
    ).logits
    return logits


def our_logits(ours: EncoderDecoder) -> torch.Tensor:
    return ours.logits(ours(sources(), targets(), source_mask=source_mask()))


def test_logits(networks: tuple[Pair, Any, EncoderDecoder]) -> None:
    _, theirs, ours = networks
    with torch.no_grad():
        assert (our_logits(ours) - their_logits(theirs)).abs().max() <= LOGITS_TOLERANCE


def test_gradients_of_every_parameter(networks: tuple[Pair, Any, EncoderDecoder]) -> None:
    pair, theirs, ours = networks
    for network in (theirs, ours):
        network.zero_grad()
    labels = targets().roll(-1, dims=1).flatten()
    F.cross_entropy(their_logits(theirs).flatten(0, 1), labels).backward()
    F.cross_entropy(our_logits(ours).flatten(0, 1), labels).backward()
    learned = [*theirs.named_parameters(), *theirs.named_buffers()]
    expected = pair.convert({name: p.grad for name, p in learned if p.grad is not None})
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    assert expected.keys() == ours.state_dict().keys()
    for name, gradient in gradients.items():
        assert gradient is not None
        error = (gradient - expected[name]).norm() / expected[name].norm().clamp_min(1e-6)
        assert error <= 1e-4, f"{name}: {error}"
    # What remains are further names of the same parameters.
    owners = {id(p): name for name, p in ours.named_parameters()}
    everywhere = dict(ours.named_parameters(remove_duplicate=False))
    for name in expected.keys() - gradients.keys():
        assert torch.equal(expected[name], expected[owners[id(everywhere[name])]])


@pytest.mark.parametrize("chunks", [[1] * 23, [11, 1, 11]])
def test_decoding_with_a_cache(networks: tuple[Pair, Any, EncoderDecoder], chunks: list[int]) -> None:
    _, theirs, ours = networks
    with torch.no_grad():
        cache = ours.make_cache(ours.encode(sources(), source_mask=source_mask()))
        steps = [ours.logits(ours.decode(part, cache=cache)) for part in targets().split(chunks, dim=1)]
        difference = torch.cat(steps, dim=1) - their_logits(theirs)
    assert difference.abs().max() <= 2 * LOGITS_TOLERANCE


def test_every_tensor_of_theirs_is_read(networks: tuple[Pair, Any, EncoderDecoder]) -> None:
    pair, theirs, _ = networks
    learned = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    for marked in learned:
        tensors = {name: torch.full_like(p, name == marked) for name, p in learned.items()}
        assert sum(float(tensor.sum()) for tensor in pair.convert(tensors).values()), marked


def test_a_wrong_weight_is_noticed(networks: tuple[Pair, Any, EncoderDecoder]) -> None:
    pair, theirs, ours = networks
    weights = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    weights["decoder.blocks.1.cross_attention.key_value.weight"][0] += 0.05
    twin = pair.config().build(VOCABULARY).eval()
    twin.load_state_dict(weights)
    with torch.no_grad():
        assert (our_logits(twin) - their_logits(theirs)).abs().max() > LOGITS_TOLERANCE


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_published_size(pair: Pair) -> None:
    preset = PRESETS[pair.preset]
    with torch.device("meta"):
        theirs = transformers.AutoModelForSeq2SeqLM.from_config(pair.published())
        ours = preset.config.build(preset.vocabulary_size)
    published = {p for p in theirs.parameters() if p.requires_grad}  # theirs count a table of sines
    expected = sum(p.numel() for p in published)
    if hasattr(theirs, "final_logits_bias"):  # learned by Marian, a buffer in theirs
        expected += theirs.final_logits_bias.numel()
    if preset.config.decoder.tie_embeddings is False:  # type: ignore[union-attr]
        expected += preset.vocabulary_size * 512  # the head that their constructor ties
    assert ours.num_parameters() == expected
