"""Alignments show the weights of the very cross-attention that ran, under the words that were read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken
from torch import Tensor

from insight.data.tokenizers import ByteTokenizerConfig
from insight.generation import alignment
from insight.generation.alignment import END, align, most_diagonal, recorded_cross_attention
from insight.models import (
    DecoderConfig,
    DifferentialAttention,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GroupedQueryAttention,
    NoPosition,
)

BYTES = ByteTokenizerConfig().build(())


def network(cross_attention: GroupedQueryAttention) -> EncoderDecoder:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "max_sequence_length": 64}
    sizes["attention"] = GroupedQueryAttention(4)
    config = EncoderDecoderConfig(
        EncoderConfig(**sizes), DecoderConfig(**sizes), cross_attention=cross_attention
    )
    built = build_shaken(config, BYTES.vocabulary_size, noise=0.2)
    assert isinstance(built, EncoderDecoder)
    return built.float().eval()


def difference(model: EncoderDecoder) -> tuple[float, list[Tensor]]:
    """Largest difference between the recorded run and the fast one, and what was recorded."""
    torch.manual_seed(0)
    source, target = torch.randint(50, (3, 9)), torch.randint(50, (3, 6))
    mask = torch.arange(9) < torch.tensor([[9], [7], [4]])
    with torch.inference_mode():
        fast = model(source, target, source_mask=mask)
        with recorded_cross_attention(model) as weights:
            slow = model(source, target, source_mask=mask)
        assert torch.equal(model(source, target, source_mask=mask), fast)  # the kernels are back
    return float((fast - slow).abs().max()), weights


CROSS = (
    GroupedQueryAttention(4, 2, position=NoPosition()),
    GroupedQueryAttention(4, sinks=True, position=NoPosition(), score_soft_cap=20.0),
    DifferentialAttention(4, position=NoPosition()),
)


@pytest.mark.parametrize("cross_attention", CROSS, ids=lambda cross: type(cross).__name__)
def test_recorded_weights_are_those_of_the_model_that_ran(cross_attention: GroupedQueryAttention) -> None:
    away, weights = difference(network(cross_attention))
    assert away < 1e-5
    num_heads = 2 if isinstance(cross_attention, DifferentialAttention) else 4
    assert [tuple(layer.shape) for layer in weights] == [(3, num_heads, 6, 9)] * 2
    for layer in weights:
        assert layer[1, :, :, 7:].abs().max() == 0  # padding
        if cross_attention is CROSS[0]:
            torch.testing.assert_close(layer.sum(-1), torch.ones(3, 4, 6))


def test_weights_of_another_temperature_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: a recorded run whose scores are scaled by 1.02."""
    call = alignment._RecordingKernel.__call__

    def warmer(
        self: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scale: float, *rest: Any
    ) -> Tensor:
        return call(self, query, key, value, mask, 1.02 * scale, *rest)

    monkeypatch.setattr(alignment._RecordingKernel, "__call__", warmer)
    assert difference(network(CROSS[0]))[0] > 1e-5


def test_kernels_come_back_after_an_error() -> None:
    model = network(CROSS[0])
    kernels = [layer.kernel for layer in model.modules() if hasattr(layer, "kernel")]
    with pytest.raises(ValueError, match="stop"), recorded_cross_attention(model):
        raise ValueError("stop")
    assert [layer.kernel for layer in model.modules() if hasattr(layer, "kernel")] == kernels


def test_the_most_diagonal_head_is_chosen() -> None:
    """A head on the diagonal wins over uniform ones, and over one that gives everything to its sink."""
    uniform = torch.full((3, 5, 7), 1 / 7)
    good = uniform.clone()
    good[2] = torch.eye(7)[(torch.arange(5) * 6 / 4).round().long()]
    silent = torch.zeros(3, 5, 7)
    assert most_diagonal([[uniform, good, silent], [uniform, good, silent]]) == (1, 2)
    assert most_diagonal([[uniform]])[0] == 0


def test_words_are_merged_from_their_tokens() -> None:
    source, target = "In him was life", "En él estaba"
    pairs = [([*BYTES.encode(source), BYTES.end_of_text_id], BYTES.encode(target))]
    [found] = align(network(CROSS[0]), (BYTES, BYTES), pairs)
    assert found.source == ("In", "him", "was", "life", END)
    assert found.target == ("En", "él", "estaba")
    assert len(found.weights) == 3
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in found.weights)
    assert align(network(CROSS[0]), (BYTES, BYTES), []) == []


def test_text_without_spaces_is_shown_by_tokens() -> None:
    pairs = [([*BYTES.encode("abcdefghi"), BYTES.end_of_text_id], BYTES.encode("日本語"))]
    [found] = align(network(CROSS[0]), (BYTES, BYTES), pairs)
    assert found.source == (*"abcdefghi", END)
    assert len(found.target) == 9
