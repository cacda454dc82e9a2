"""The built-in classifier: made again byte for byte, honest about its errors, unmoved by hostile text."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from insight.data import read_corpus
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.statistics import wilson_interval
from insight.safety.toxicity import NgramClassifier
from insight.safety.toxicity_classifier import (
    MAX_CHARACTERS,
    MODEL_PATH,
    THRESHOLD,
    LabelledSentence,
    hashed_ngrams,
    make_model,
    measure,
    read_model,
    read_sentences,
    sentences,
    train,
)


def part(is_held_out: bool) -> list[LabelledSentence]:
    return [sentence for sentence in read_sentences() if sentence.is_held_out == is_held_out]


def runs_of_four_words(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[start : start + 4]) for start in range(len(words) - 3)}


def shared_runs(training: list[LabelledSentence], held_out: list[LabelledSentence]) -> list[str]:
    known = set().union(*(runs_of_four_words(sentence.text) for sentence in training))
    return [sentence.text for sentence in held_out if runs_of_four_words(sentence.text) & known]


def test_it_is_made_again_to_the_same_bytes(tmp_path: Path) -> None:
    from insight.safety.toxicity_classifier import SENTENCES_PATH

    make_model(SENTENCES_PATH, tmp_path / "model.json")
    assert (tmp_path / "model.json").read_bytes() == MODEL_PATH.read_bytes()


def test_other_sentences_make_another_file(tmp_path: Path) -> None:
    """The twin: the comparison above would notice."""
    from insight.safety.toxicity_classifier import SENTENCES_PATH

    text = SENTENCES_PATH.read_text(encoding="utf-8").replace("Drop dead.\n", "")
    (tmp_path / "sentences.txt").write_text(text, encoding="utf-8")
    make_model(tmp_path / "sentences.txt", tmp_path / "model.json")
    assert (tmp_path / "model.json").read_bytes() != MODEL_PATH.read_bytes()


def test_the_file_is_small_and_plain() -> None:
    assert MODEL_PATH.stat().st_size < 200_000
    content = json.loads(MODEL_PATH.read_bytes())
    assert set(content) == {"format_version", "held_out", "bias", "scale", "weights"}


def test_no_held_out_sentence_is_made_like_one_trained_on() -> None:
    training, held_out = part(False), part(True)
    assert len(held_out) > 200
    assert min(sum(s.is_toxic for s in held_out), sum(not s.is_toxic for s in held_out)) >= 80
    assert all(sentence.template == sentence.text for sentence in held_out)
    assert not {sentence.template for sentence in training} & {sentence.template for sentence in held_out}
    assert shared_runs(training, held_out) == []
    assert shared_runs(training, [*held_out, training[0]]) == [training[0].text]  # it would be noticed


def test_error_rates_are_those_of_the_held_out_part_and_better_than_guessing() -> None:
    model, counts = read_model()
    assert measure(model, part(True)) == counts
    rates = NgramClassifier().error_rates()
    assert rates.sensitivity == wilson_interval(counts.num_toxic_found, counts.num_toxic)
    assert rates.specificity == wilson_interval(counts.num_civil_passed, counts.num_civil)
    assert rates.sensitivity.low + rates.specificity.low > 1.2  # Rogan and Gladen's least usable sum
    assert str(counts.num_toxic) in rates.source


def test_false_alarms_on_prose_from_elsewhere_are_those_of_the_guide() -> None:
    """docs/safety.md says one in ten; a novel holds little that is toxic, so almost all alarms are false."""
    model, _ = read_model()
    prose = sentences(read_corpus("austen-northangerabbey"))[::4]
    alarms = sum(model.probability(sentence) >= THRESHOLD for sentence in prose) / len(prose)
    assert 0.07 < alarms < 0.13


def test_labels_turned_round_are_noticed() -> None:
    """The twin: a classifier that learned the opposite has error rates that say so."""
    turned = [
        LabelledSentence(sentence.text, not sentence.is_toxic, False, sentence.template)
        for sentence in part(False)
    ]
    counts = measure(train(turned), part(True))
    assert counts.num_toxic_found < counts.num_toxic / 2
    assert counts.num_civil_passed < counts.num_civil / 2


def test_naming_a_group_of_people_is_not_toxic() -> None:
    civil = [
        "The Muslims of the town built a school.",
        "The Jews came to the valley in spring.",
        "Two women and a black man sat in the train.",
        "The gay couple walked in the park.",
        "Foreigners visit the castle in summer.",
        "The disabled children sang in the choir.",
    ]
    toxic = ["You are a disgusting idiot.", "Shut up, you stupid pig.", "I will kill you, you bastard."]
    classifier = NgramClassifier()
    assert sum(value < THRESHOLD for value in classifier.probabilities(civil)) >= 5
    assert all(value >= THRESHOLD for value in classifier.probabilities(toxic))


def test_each_text_is_judged_alone_by_its_worst_sentence() -> None:
    classifier = NgramClassifier()
    kind, harsh = "It was a fine morning.", "You are a stupid pig."
    one, other, both = classifier.probabilities([kind, harsh, f"{kind} {harsh} {kind}"])
    assert one < THRESHOLD <= other == both
    assert classifier.probabilities([harsh]) == [other]
    assert classifier.probabilities([]) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "!?",
        "\x00\x1b[2J",
        "\ud800\udfff",
        "<script>alert(1)</script>",
        "猫",
        "a" * 10**6,
        "ab " * 10**6,
    ],
)
def test_hostile_text_is_judged_quickly(text: str) -> None:
    started = time.perf_counter()
    (value,) = NgramClassifier().probabilities([text])
    assert 0 <= value <= 1
    assert time.perf_counter() - started < 2


def test_text_behind_the_limit_is_not_read() -> None:
    filler = "all is well. " * (MAX_CHARACTERS // 13)
    classifier = NgramClassifier()
    assert len(filler) <= MAX_CHARACTERS
    assert classifier.probabilities([filler + "x" * 20 + " You stupid pig."]) == classifier.probabilities(
        [filler + "x" * 20]
    )


def test_sentences_are_cut_and_long_ones_in_pieces() -> None:
    assert sentences("One two. Three!\nfour") == ["One two", "Three", "four"]
    assert [len(piece.split()) for piece in sentences("word " * 90)] == [40, 40, 10]
    assert sentences(" ... \n") == []


def test_n_grams_do_not_depend_on_case_or_width() -> None:
    assert hashed_ngrams("You PIG", 1 << 16).tolist() == hashed_ngrams("you ｐｉｇ", 1 << 16).tolist()
    assert hashed_ngrams("a b", 1 << 16).tolist() != hashed_ngrams("b a", 1 << 16).tolist()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04.",
        b"[]",
        b'{"format_version": 1}',
        b'{"format_version": 2}',
        b'{"format_version": 1, "weights": "AAA=", "scale": 1, "bias": 0, "held_out": {}}',
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.json") as caught:
        NgramClassifier(str(tmp_path / "model.json"))
    assert "insight.safety.toxicity_classifier" in caught.value.remedy
    with pytest.raises(ConfigError, match=r"none\.json"):
        NgramClassifier(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("You.", "line 1"),
        ("[training toxik]\nYou.", "line 1"),
        ("[training toxic]\nYou {insult}.", "insult"),
    ],
)
def test_a_bad_file_of_sentences_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "sentences.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=named):
        read_sentences(tmp_path / "sentences.txt")
