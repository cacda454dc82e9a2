"""Greedy and beam search against ``generate`` of transformers' T5 and Marian, with equal random weights."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from test_encoder_decoders import PAIRS, VOCABULARY

from insight.generation import (
    CurrentLengthBound,
    EnoughFinished,
    Hypothesis,
    LongestLengthBound,
    MeanLogProbability,
    SearchSettings,
    Sentence,
    StopRule,
    beam_search,
)
from insight.generation.packing import PackedWeights
from insight.generation.scorers import EncoderDecoderScorer
from insight.models import EncoderDecoder

BEGIN, LONGEST, NUM_SENTENCES = 0, 12, 4
Networks = tuple[Any, EncoderDecoder, int]
STOPS: dict[Any, StopRule] = {
    True: EnoughFinished(),
    False: CurrentLengthBound(),
    "never": LongestLengthBound(),
}


@pytest.fixture(scope="module", params=PAIRS.values(), ids=PAIRS.keys())
def networks(request: pytest.FixtureRequest) -> Networks:
    """Their network and ours, and as the end a token that they like to write after some others."""
    theirs, ours = request.param.build()
    theirs.generation_config.forced_eos_token_id = None
    unending = ours_found((theirs, ours, VOCABULARY), SearchSettings(4, 4))
    counts = Counter(token for found in unending for one in found for token in set(one.token_ids[2:]))
    return theirs, ours, counts.most_common(1)[0][0]


def sources(num_sentences: int = NUM_SENTENCES) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, 12, (num_sentences,), generator=generator).tolist()
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def ours_found(networks: Networks, settings: SearchSettings) -> list[list[Hypothesis]]:
    with torch.inference_mode():
        scorer = EncoderDecoderScorer(networks[1], sources(), LONGEST, BEGIN, VOCABULARY)
        # Theirs counts the token that begins a text as a part of repeated sequences, so it is not written.
        sentence = Sentence(LONGEST, must_not_contain=((BEGIN,),))
        return beam_search(scorer, [sentence] * NUM_SENTENCES, networks[2], settings)


def theirs_found(
    networks: Networks, num_beams: int, num_best: int, **options: Any
) -> tuple[list[Any], list[float]]:
    rows = sources()
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    theirs, _, end = networks
    output = theirs.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=LONGEST,
        num_beams=num_beams,
        num_return_sequences=num_best,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=BEGIN,
        bad_words_ids=[[BEGIN]],
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    texts = [tuple(row[: row.index(end)] if end in row else row) for row in output.sequences[:, 1:].tolist()]
    scores = output.sequences_scores.tolist() if num_beams > 1 else []
    return texts, scores


@pytest.mark.parametrize("no_repeat", [0, 2])
def test_greedy_search(networks: Networks, no_repeat: int) -> None:
    texts, _ = theirs_found(networks, 1, 1, no_repeat_ngram_size=no_repeat)
    found = ours_found(networks, SearchSettings(1, no_repeat_ngram=no_repeat))
    assert [sentence[0].token_ids for sentence in found] == texts


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("power", [0.6, 1.0, 2.0])
@pytest.mark.parametrize(("num_beams", "num_best", "no_repeat"), [(4, 4, 0), (5, 2, 2)])
def test_beam_search(
    networks: Networks,
    early_stopping: Any,
    power: float,
    num_beams: int,
    num_best: int,
    no_repeat: int,
) -> None:
    options = {"length_penalty": power, "early_stopping": early_stopping, "no_repeat_ngram_size": no_repeat}
    texts, scores = theirs_found(networks, num_beams, num_best, **options)
    rule = MeanLogProbability(power)
    settings = SearchSettings(num_beams, num_best, rule, STOPS[early_stopping], no_repeat_ngram=no_repeat)
    found = [hypothesis for sentence in ours_found(networks, settings) for hypothesis in sentence]
    assert [hypothesis.token_ids for hypothesis in found] == texts
    assert [hypothesis.score for hypothesis in found] == pytest.approx(scores, abs=1e-4)


def test_the_stop_rules_differ_here(networks: Networks) -> None:
    """The twin: with another stop rule or exponent, the comparisons above would fail."""
    found = {
        (stop.name, power): [one.token_ids for sentence in ours_found(networks, settings) for one in sentence]
        for stop in STOPS.values()
        for power in (0.6, 2.0)
        for settings in [SearchSettings(4, 4, MeanLogProbability(power), stop)]
    }
    assert len({tuple(texts) for texts in found.values()}) >= 3


def test_packed_weights_find_the_same(networks: Networks) -> None:
    """Every matrix is packed here, however small, and every search finds the same texts."""
    plain = ours_found(networks, SearchSettings(4, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("insight.generation.packing._SMALLEST", 1)
        patch.setattr("insight.generation.packing._FEWEST_PRODUCTS", 1)
        patch.setattr("insight.generation.packing._LARGE", 1)
        weights = PackedWeights(networks[1])
        with weights.used():
            packed = ours_found(networks, SearchSettings(4, 4))
        assert weights._packed
    assert not any("forward" in vars(module) for module in networks[1].modules())
    for one, other in zip(plain, packed, strict=True):
        assert [hypothesis.token_ids for hypothesis in one] == [hypothesis.token_ids for hypothesis in other]
        scores = [[hypothesis.score for hypothesis in sentence] for sentence in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_packed_weights_follow_a_change() -> None:
    weight = torch.nn.Parameter(torch.randn(6, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("insight.generation.packing._SMALLEST", 1)
        patch.setattr("insight.generation.packing._FEWEST_PRODUCTS", 1)
        patch.setattr("insight.generation.packing._LARGE", 1)
        product = PackedWeights(torch.nn.Linear(1, 1)).product(weight, None)
        assert product is not None
        rows = torch.randn(3, 4)
        for _ in range(2):
            with torch.no_grad():
                for some in (rows, rows[:1]):
                    torch.testing.assert_close(product(some), some @ weight.T)
                weight.add_(1.0)
