"""Numeric parity with transformers' Llama and Qwen 3: logits, gradients, decoding with a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from insight.generation import (
    EnoughFinished,
    LongestLengthBound,
    MeanLogProbability,
    SearchSettings,
    Sentence,
    StopRule,
    beam_search,
)
from insight.generation.scorers import DecoderScorer
from insight.interchange.llama import LLAMA
from insight.models import Decoder, DecoderConfig, GroupedQueryAttention, RMSNorm, Rope, SwiGLU

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocabulary": 61,
    "hidden": 48,
    "layers": 2,
    "intermediate": 80,
    "context": 64,
}
CASES = {
    "llama_multi_head": ("Llama", 4, 4, False),
    "llama_grouped": ("Llama", 4, 2, False),
    "llama_multi_query_tied": ("Llama", 4, 1, True),
    "qwen3_grouped": ("Qwen3", 4, 2, False),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def pair(request: pytest.FixtureRequest) -> tuple[Any, Decoder]:
    """Their network with random weights, and ours with the same."""
    family, num_heads, num_key_value_heads, tied = request.param
    torch.manual_seed(0)
    head_dim = SIZES["hidden"] // num_heads
    theirs_config = getattr(transformers, f"{family}Config")(
        vocab_size=SIZES["vocabulary"],
        hidden_size=SIZES["hidden"],
        num_hidden_layers=SIZES["layers"],
        intermediate_size=SIZES["intermediate"],
        num_attention_heads=num_heads,
        num_key_value_heads=num_key_value_heads,
        head_dim=head_dim,
        max_position_embeddings=SIZES["context"],
        tie_word_embeddings=tied,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        attn_implementation="eager",
    )
    theirs = getattr(transformers, f"{family}ForCausalLM")(theirs_config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms too: ones would hide a mix-up
    config = DecoderConfig(
        hidden_size=SIZES["hidden"],
        num_layers=SIZES["layers"],
        attention=GroupedQueryAttention(
            num_heads,
            num_key_value_heads,
            position=Rope(5000.0),
            qk_norm="rms" if family == "Qwen3" else "none",
        ),
        feed_forward=SwiGLU(SIZES["intermediate"]),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=SIZES["context"],
        tie_embeddings=tied,
    )
    ours = config.build(SIZES["vocabulary"])
    ours.load_state_dict(LLAMA.convert(_without_tied(theirs.state_dict(), tied), SIZES["layers"]))
    return theirs, ours.eval()


def _without_tied(tensors: dict[str, torch.Tensor], tied: bool) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not (tied and name == "lm_head.weight")}


def _ids() -> torch.Tensor:
    return torch.randint(0, SIZES["vocabulary"], (3, 29), generator=torch.Generator().manual_seed(1))


LOGITS_TOLERANCE = 1e-5


def test_logits(pair: tuple[Any, Decoder]) -> None:
    theirs, ours = pair
    with torch.no_grad():
        difference = ours.logits(ours(_ids())) - theirs(_ids()).logits
    assert difference.abs().max() <= LOGITS_TOLERANCE


def test_gradients_of_every_parameter(pair: tuple[Any, Decoder]) -> None:
    theirs, ours = pair
    ids = _ids()
    F.cross_entropy(theirs(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    ours.train()
    F.cross_entropy(ours.logits(ours(ids))[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    named = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    expected = LLAMA.convert(named, SIZES["layers"])
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    assert expected.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_decoding_with_a_cache_token_by_token(pair: tuple[Any, Decoder]) -> None:
    theirs, ours = pair
    ids = _ids()
    cache = ours.make_cache(batch_size=3)
    with torch.no_grad():
        expected = theirs(ids).logits
        steps = [ours.logits(ours(ids[:, at : at + 1], cache=cache)) for at in range(ids.shape[1])]
    assert (torch.cat(steps, dim=1) - expected).abs().max() <= 2e-5


@pytest.mark.parametrize(
    ("early_stopping", "stop", "no_repeat"),
    [(True, EnoughFinished(), 0), ("never", LongestLengthBound(), 2)],
)
def test_beam_search(pair: tuple[Any, Decoder], early_stopping: Any, stop: StopRule, no_repeat: int) -> None:
    """Texts and scores of ``generate``; the prompt's tokens count where sequences may not occur twice."""
    theirs, ours = pair
    rows, beams, longest = _ids()[:, :9], 4, 10
    ends = theirs.generate(rows, max_new_tokens=2, do_sample=False, pad_token_id=0)[:, -1]
    output = theirs.generate(
        input_ids=rows,
        attention_mask=torch.ones_like(rows),
        max_new_tokens=longest,
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        eos_token_id=int(ends[0]),
        pad_token_id=int(ends[0]),
        early_stopping=early_stopping,
        length_penalty=0.8,
        no_repeat_ngram_size=no_repeat,
        return_dict_in_generate=True,
        output_scores=True,
    )
    settings = SearchSettings(beams, beams, MeanLogProbability(0.8), stop, no_repeat_ngram=no_repeat)
    sentences = [Sentence(longest, context=tuple(row)) for row in rows.tolist()]
    with torch.inference_mode():
        scorer = DecoderScorer(ours, rows.tolist(), longest, SIZES["vocabulary"])
        found = [one for each in beam_search(scorer, sentences, int(ends[0]), settings) for one in each]
    for hypothesis, ids in zip(found, output.sequences[:, rows.shape[1] :].tolist(), strict=True):
        assert hypothesis.token_ids == tuple(ids[: ids.index(ends[0])] if ends[0] in ids else ids)
    expected = output.sequences_scores.tolist()
    assert [hypothesis.score for hypothesis in found] == pytest.approx(expected, abs=1e-4)


def test_a_wrong_weight_is_noticed(pair: tuple[Any, Decoder]) -> None:
    theirs, ours = pair
    with torch.no_grad():
        queries, keys, _ = ours.blocks[0].attention.query_key_value.parts()  # type: ignore[union-attr, operator]
        queries[0].swapaxes_(0, 0).add_(0.05)
        keys[0].add_(0.05)
        difference = ours.logits(ours(_ids())) - theirs(_ids()).logits
    assert difference.abs().max() > LOGITS_TOLERANCE
