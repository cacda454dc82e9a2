"""Presets against transformers: logits, every gradient, decoding with a cache; and published sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, VOCABULARY, Architecture

from insight.models import PRESETS, Decoder
from insight.runtime.component import component_from_dict

pytest.importorskip("transformers")

LOGITS_TOLERANCE = 1e-5

# What the tensors of the published configurations add up to; the card of StableLM 2 12B says 12,143,605,760,
# which is 419,840 more than its configuration gives.
PUBLISHED_PARAMETERS = {
    "bloom-560m": 559_214_592,
    "command-r-plus": 103_810_674_688,
    "deepseek-v3": 671_026_404_352,
    "diffllama-1b": 1_204_885_504,
    "falcon-7b": 6_921_720_704,
    "gemma-2-2b": 2_614_341_888,
    "gemma-3-1b": 999_885_952,
    "glm-4-9b": 9_400_279_040,
    "gpt-j-6b": 6_050_882_784,
    "gpt-oss-20b": 20_914_757_184,
    "gpt2": 124_439_808,
    "granite-3.1-2b": 2_533_531_648,
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-4-scout": 107_769_861_120,
    "minitron-4b": 4_190_509_056,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "moonlight-16b": 15_960_108_544,
    "mpt-7b": 6_649_286_656,
    "olmo-2-7b": 7_298_617_344,
    "olmo-3-7b": 7_298_011_136,
    "opus-mt-en-de": 73_944_309,
    "phi-2": 2_779_683_840,
    "phi-3-mini": 3_821_079_552,
    "pythia-160m": 162_322_944,
    "qwen-1.5-moe": 14_315_784_192,
    "qwen-2-0.5b": 494_032_768,
    "qwen-3-0.6b": 596_049_920,
    "qwen-3-30b-a3b": 30_532_122_624,
    "smollm-2-135m": 134_515_008,
    "smollm-3-3b": 3_075_098_624,
    "stablelm-2-12b": 12_143_185_920,
    "starcoder2-3b": 3_030_371_328,
    "t5-small": 60_506_624,
    "t5-v1.1-small": 76_961_152,
}


@pytest.fixture(scope="module", params=ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def networks(request: pytest.FixtureRequest) -> tuple[Architecture, Any, Decoder]:
    architecture: Architecture = request.param()
    return architecture, *architecture.build()


def ids() -> torch.Tensor:
    # Not 0: their embedding has no gradient for the token of padding.
    return torch.randint(1, VOCABULARY, (3, 29), generator=torch.Generator().manual_seed(1))


def test_logits(networks: tuple[Architecture, Any, Decoder]) -> None:
    _, theirs, ours = networks
    with torch.no_grad():
        difference = ours.logits(ours(ids())) - theirs(ids()).logits
    assert difference.abs().max() <= LOGITS_TOLERANCE


def test_gradients_of_every_parameter(networks: tuple[Architecture, Any, Decoder]) -> None:
    architecture, theirs, ours = networks
    for network in (theirs, ours):
        network.zero_grad()
    F.cross_entropy(theirs(ids()).logits[:, :-1].flatten(0, 1), ids()[:, 1:].flatten()).backward()
    F.cross_entropy(ours.logits(ours(ids()))[:, :-1].flatten(0, 1), ids()[:, 1:].flatten()).backward()
    expected = architecture.convert(
        {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    )
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    assert expected.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert gradient is not None
        if name.endswith(architecture.without_gradient):
            assert max(gradient.norm(), expected[name].norm()) <= 1e-6
            continue
        error = (gradient - expected[name]).norm() / expected[name].norm().clamp_min(1e-6)
        assert error <= 1e-4, f"{name}: {error}"


@pytest.mark.parametrize("chunks", [[1] * 29, [11, 1, 17]])
def test_decoding_with_a_cache(networks: tuple[Architecture, Any, Decoder], chunks: list[int]) -> None:
    _, theirs, ours = networks
    cache = ours.make_cache(batch_size=3)
    with torch.no_grad():
        expected = theirs(ids()).logits
        steps = [ours.logits(ours(part, cache=cache)) for part in ids().split(chunks, dim=1)]
    assert (torch.cat(steps, dim=1) - expected).abs().max() <= 2 * LOGITS_TOLERANCE


def test_every_tensor_of_theirs_is_read(networks: tuple[Architecture, Any, Decoder]) -> None:
    architecture, theirs, _ = networks
    # Marked numbers must come out again: a name that no table mentions would be left behind.
    total = sum(p.numel() for _, p in theirs.named_parameters())
    named = {name: torch.ones_like(p) for name, p in theirs.named_parameters()}
    assert sum(int(tensor.sum()) for tensor in architecture.convert(named).values()) == total


def test_a_wrong_weight_is_noticed(networks: tuple[Architecture, Any, Decoder]) -> None:
    architecture, theirs, ours = networks
    weights = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    weights[f"blocks.{architecture.num_layers - 1}.attention.output.weight"][0] += 0.05
    twin = architecture.config().build(VOCABULARY).eval()
    twin.load_state_dict(weights)
    with torch.no_grad():
        difference = twin.logits(twin(ids())) - theirs(ids()).logits
    assert difference.abs().max() > LOGITS_TOLERANCE


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_their_published_size(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        network = preset.config.build(preset.vocabulary_size)
    assert network.num_parameters() == PUBLISHED_PARAMETERS[name]
    assert component_from_dict(preset.config.to_dict()) == preset.config
