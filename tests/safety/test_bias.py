"""The minimal pairs are minimal and balanced; the preference is that of the shared words alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from insight.data import BPETokenizerConfig, ByteTokenizer, read_corpus
from insight.generation.scoring import log_likelihoods
from insight.models import DecoderConfig
from insight.runtime.errors import DataError
from insight.runtime.seeding import seed_everything
from insight.safety import Material, Response, ScoredItem
from insight.safety.bias import StereotypePairs, StereotypePreference, read_pairs

ITEMS = StereotypePairs().items(Material(), seed=0)


def test_there_are_enough_pairs_in_five_groups_each_with_controls() -> None:
    counts = Counter((pair.group, pair.role) for pair in read_pairs())
    groups = {group for group, _ in counts}
    assert len(groups) == 5
    assert sum(counts[group, "probe"] for group in groups) >= 60
    assert all(counts[group, "probe"] >= 12 and counts[group, "control"] >= 8 for group in groups)


def test_members_differ_in_one_word_and_the_stereotype_stands_behind_it() -> None:
    for pair in read_pairs():
        first, second = (re.findall(r"[\w']+", sentence) for sentence in pair.sentences)
        different = [index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        assert len(different) == 1, pair
        assert len(first) - different[0] > 3, pair


def test_liking_a_word_whatever_follows_comes_out_at_one_half() -> None:
    """In each group every pair of words stands in both orders equally often, probes and controls apart."""
    counts = Counter(
        (pair.group, pair.role, *(word.strip().lower() for word in pair.words)) for pair in read_pairs()
    )
    for (group, role, first, second), count in counts.items():
        assert counts[group, role, second, first] == count, (group, role, first, second)


def test_no_two_items_ask_the_same() -> None:
    assert len({item.key for item in ITEMS}) == len(ITEMS)
    assert len({item.reference["sentences"][0] for item in ITEMS}) == len(ITEMS)


def test_members_are_scored_over_the_same_tokens() -> None:
    """The sentence begins with the tokens of the word alone, and what comes then is the same for both."""
    encode = BPETokenizerConfig(700).build([read_corpus("austen-emma")[:100_000]]).encode
    for item in ITEMS:
        rests = []
        for whole, word in ((0, 2), (1, 3)):
            sentence = encode(item.prompt + item.continuations[whole])
            beginning = encode(item.prompt + item.continuations[word])
            assert sentence[: len(beginning)] == beginning
            rests.append(sentence[len(beginning) :])
        assert rests[0] == rests[1]


def test_the_shared_part_is_what_a_network_gives_it() -> None:
    """The difference of two log-likelihoods is the sum over the rest, by scoring the rest directly."""
    seed_everything(0)
    network, tokenizer = DecoderConfig(hidden_size=32, num_layers=1).build(257).eval(), ByteTokenizer()
    item = ITEMS[0]
    (found,) = log_likelihoods(network, tokenizer, [item.prompt], [item.continuations])
    for whole, word in ((0, 2), (1, 3)):
        rest = item.continuations[whole].removeprefix(item.continuations[word])
        ((direct,),) = log_likelihoods(network, tokenizer, [item.prompt + item.continuations[word]], [[rest]])
        assert found[whole] - found[word] == pytest.approx(direct, abs=1e-3)


def test_a_preference_a_tie_and_a_number_that_is_none() -> None:
    evaluator = StereotypePreference()

    def value(*log_likelihoods: float) -> float | None:
        score = evaluator.score(ITEMS[0], Response(log_likelihoods=log_likelihoods))
        return None if score is None else score.value

    assert value(-10.0, -10.5, -2.0, -2.0) == 1
    assert value(-10.5, -10.0, -2.0, -2.0) == 0
    # The whole sentence is likelier with the first word, the rest given the word is not.
    assert value(-10.0, -10.5, -2.0, -5.0) == 0
    assert value(-10.0, -11.0, -2.0, -3.0) is None
    assert value(math.nan, -10.0, -2.0, -2.0) is None
    assert value(-math.inf, -10.0, -2.0, -2.0) is None


def answered(prefers: dict[str, float]) -> list[ScoredItem]:
    """All items answered by a model that gives the rest a bonus after some words."""
    evaluator, scored = StereotypePreference(), []
    for item in ITEMS:
        bonus = [prefers.get(word.strip().lower(), 0.0) for word in item.continuations[2:]]
        response = Response(log_likelihoods=(-9 + bonus[0], -9.01 + bonus[1], -1.0, -1.0))
        if score := evaluator.score(item, response):
            scored.append(ScoredItem(item, response, score))
    return scored


def test_figures_overall_and_by_group() -> None:
    # Without any bonus the first member is ahead by a hundredth everywhere: everything is preferred.
    headline, *groups = StereotypePreference().summarize(answered({}), seed=0)
    assert headline.interval.value == 1
    assert headline.interval.n == 70
    assert headline.interval.low > 0.9
    assert headline.control is not None
    assert headline.control.n == 40
    assert headline.ideal == 0.5
    assert [figure.name for figure in groups] == [
        f"preference_{name}" for name in ("gender", "age", "religion", "nationality", "disability")
    ]
    assert all(figure.interval.n == 14 for figure in groups)


def test_a_model_that_likes_one_word_of_each_pair_is_at_one_half() -> None:
    words = {word.strip().lower() for pair in read_pairs() for word in pair.words}
    ranks = {word: float(rank) for rank, word in enumerate(sorted(words))}
    headline = StereotypePreference().summarize(answered(ranks), seed=0)[0]
    assert headline.interval.value == 0.5
    assert headline.interval.low < 0.5 < headline.interval.high


def test_own_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("# mine\n\njob\tA {tinker|tailor} sang.\njob\t{A|B} sang.\tcontrol\n", encoding="utf-8")
    probe, control = StereotypePairs(str(path)).items(Material(), seed=0)
    assert probe.continuations == (" tinker sang.", " tailor sang.", " tinker", " tailor")
    assert probe.prompt == "A"
    assert (control.key, control.role, control.prompt) == ("job-control/01", "control", "")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gender The {a|b} sang.", "line 1"),
        ("gender\tThe {a|b} sang.\nage\tThe {a|b|c} sang.", "line 2"),
        ("gender\tThe a sang.", "line 1"),
        ("gender\tThe {a|b}s sang.", "touches"),
        ("gender\tThe {a|b} sang.\tcontrl", "line 1"),
        ("gender\tThe {a|b} sang.\tcontrol", "holds no pair"),
        ("", "holds no pair"),
    ],
)
def test_a_bad_file_of_pairs_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=named):
        StereotypePairs(str(path)).items(Material(), seed=0)
    with pytest.raises(DataError, match=r"none\.txt"):
        StereotypePairs(str(tmp_path / "none.txt")).items(Material(), seed=0)
