"""Texts by search from decoders: enumeration, transformers' order, constraints on words, mistakes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.data.tokenizers import BPETokenizerConfig, ByteTokenizerConfig
from insight.generation import GenerationSettings, TextGenerator, generate, generate_batch
from insight.generation.text_constraints import RequiredText
from insight.models import Decoder, DecoderConfig, GroupedQueryAttention
from insight.runtime.errors import ConfigError

BYTES = ByteTokenizerConfig().build(())
CONTEXT = 24
PROMPTS = ["Emma", "", "It is a", "Anne"]


@pytest.fixture(scope="module")
def network() -> Decoder:
    config = DecoderConfig(32, 1, GroupedQueryAttention(4), max_sequence_length=CONTEXT)
    built = build_shaken(config, BYTES.vocabulary_size, noise=0.3)
    assert isinstance(built, Decoder)
    return built.double()


def searched(**options: Any) -> GenerationSettings:
    return GenerationSettings(**{"num_beams": 3, "max_new_tokens": 12, **options})


def test_the_widest_beam_finds_the_best_of_all_texts(network: Decoder) -> None:
    """Two tokens behind a prompt: the best sums of all 66,000 texts, and those that end at once."""
    size = BYTES.vocabulary_size
    options = {"num_beams": size, "n_best": 5, "max_new_tokens": 2, "length_penalty": 0.0}
    found = generate(network, BYTES, "Em", searched(**options))
    ids = [BYTES.end_of_text_id, *BYTES.encode("Em")]
    with torch.inference_mode():
        first = network.logits(network(torch.tensor([ids]))[:, -1]).log_softmax(-1)[0, :size]
        rows = torch.tensor([[*ids, token] for token in range(size)])
        second = network.logits(network(rows)[:, -1]).log_softmax(-1)[:, :size]
    sums = (first.unsqueeze(1) + second).flatten()
    expected = {
        divmod(place, size): float(total)
        for place, total in enumerate(sums)
        if place // size != BYTES.end_of_text_id
    }
    expected = {
        ids[:1] if ids[1] == BYTES.end_of_text_id else ids: total for ids, total in expected.items()
    } | {(): float(first[BYTES.end_of_text_id])}
    best = sorted(expected.items(), key=lambda one: -one[1])[:5]
    assert [one.token_ids for _, one in found.hypotheses] == [ids for ids, _ in best]
    scores = [one.score for _, one in found.hypotheses]
    assert scores == pytest.approx([total for _, total in best], abs=1e-5)  # the scorer's are float32
    assert found.text == found.hypotheses[0][0] == BYTES.decode(found.hypotheses[0][1].token_ids)
    assert found.signature == f"beam:{size}|score:sum/L^0|end:yes|stop:exact|max:2"


def test_a_batch_gives_what_each_prompt_gives_alone(network: Decoder) -> None:
    for settings in (
        searched(n_best=3),
        GenerationSettings(n_best=2, max_new_tokens=9, must_not_contain="e"),
    ):
        together = generate_batch(network, BYTES, PROMPTS, settings, range(4))
        for seed, prompt, one in zip(range(4), PROMPTS, together, strict=True):
            alone = generate_batch(network, BYTES, [prompt], settings, [seed])[0]
            assert [text for text, _ in one.hypotheses] == [text for text, _ in alone.hypotheses]
            assert not any("e" in text for text, _ in one.hypotheses) or settings.num_beams


def test_greedy_search_is_drawing_without_temperature(network: Decoder) -> None:
    drawn = generate(network, BYTES, "Emma", GenerationSettings(temperature=0.0, max_new_tokens=12))
    found = generate(network, BYTES, "Emma", searched(num_beams=1))
    assert (found.text, found.token_ids, found.finish_reason) == (
        drawn.text,
        drawn.token_ids,
        drawn.finish_reason,
    )
    writer = TextGenerator(network, BYTES, "Emma", searched(num_beams=1))
    assert list(writer) == [found.text]
    assert writer.result == found


def test_a_search_ends_with_the_context(network: Decoder) -> None:
    found = generate(network, BYTES, "x" * 15, searched(max_new_tokens=50, must_not_contain="\x00"))
    room = CONTEXT - 16 + 1
    assert all(len(one.token_ids) <= room for _, one in found.hypotheses)
    with pytest.raises(ConfigError) as error:
        generate(network, BYTES, "x" * 15, searched(max_new_tokens=50, overflow="error"))
    assert error.value.option == "max_new_tokens"
    long = generate(network, BYTES, "y" * 60, searched(max_new_tokens=3))
    assert long.num_forgotten_tokens == 61 - CONTEXT // 2


def test_no_sequence_repeats_nor_does_one_of_the_prompt(network: Decoder) -> None:
    found = generate(network, BYTES, "abab", searched(no_repeat_ngram=2, n_best=3))
    for _, one in found.hypotheses:
        ids = [BYTES.end_of_text_id, *BYTES.encode("abab"), *one.token_ids]
        pairs = list(itertools.pairwise(ids))[4:]  # the prompt repeats itself
        assert len(set(pairs)) == len(pairs)
        assert not set(pairs) & set(list(itertools.pairwise(ids))[:4])


# ------------------------------------------------------------ texts that must be contained


@pytest.fixture(scope="module")
def pieces() -> Any:
    texts = ["word", "the word of the sword and the words"] * 30
    return BPETokenizerConfig(vocabulary_size=270).build(texts)


def test_a_word_is_found_where_a_word_begins(pieces: Any) -> None:
    required = RequiredText("word", pieces)
    for text, is_there in (
        ("word", True),
        ("the word", True),
        ("of words", True),
        ("the sword", False),
        ("a 'word'", True),
        ("sword, word", True),
        ("Word", False),
    ):
        assert required.is_in(tuple(pieces.encode(text))) is is_there, text
    # Any division into tokens counts.
    letters = [pieces.encode(letter)[0] for letter in " word"]
    assert required.is_in(tuple(letters))


def test_texts_that_begin_no_word_stand_anywhere(pieces: Any) -> None:
    for required, text in (
        (",", "the word, the"),
        ("ord", "w-ord"),
        ("言葉", "この言葉"),
        (" wo", "the word"),
    ):
        assert RequiredText(required, pieces).is_in(tuple(pieces.encode(text))), required
    assert not RequiredText("слово", pieces).is_in(tuple(pieces.encode("полслово")))
    behind = RequiredText("word", pieces, before="the s")
    assert not behind.is_in(tuple(pieces.encode("word")))
    assert behind.is_in(tuple(pieces.encode(" word")))


def test_the_search_is_led_to_a_word_of_its_own(pieces: Any) -> None:
    """In the middle of a word only the spelling with its space is begun, and none behind a space twice."""
    required = RequiredText("word", pieces)
    alone, behind_space = (pieces.encode(text)[0] for text in ("word", " word"))
    assert required.next_tokens(()) == {alone, behind_space}
    assert required.next_tokens(tuple(pieces.encode("the s"))) == {behind_space}
    assert required.next_tokens(tuple(pieces.encode("the "))) == {alone}


def test_constraints_in_the_middle_of_a_text(network: Decoder) -> None:
    """One spelling without a space would only be found at the beginning, as the twin shows."""
    options = {"num_beams": 8, "must_contain": ("ab", "q"), "must_not_contain": ("z",)}
    found = generate(network, BYTES, "The end", searched(**options))
    words = f"The end{found.text}"
    assert any(not words[place - 1].isalnum() for place in range(7, len(words)) if words[place:][:2] == "ab")
    assert any(not words[place - 1].isalnum() for place in range(7, len(words)) if words[place:][:1] == "q")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("insight.generation.text_constraints._may_stand", lambda before, text: True)
        anywhere = generate(network, BYTES, "The end", searched(**options)).text
    assert anywhere != found.text


# ------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"n_best": 4}, "n_best"),
        ({"num_beams": None, "n_best": 2, "temperature": 0.0}, "n_best"),
        ({"num_beams": None, "must_contain": "a"}, "must_contain"),
        ({"num_beams": None, "length_penalty": 1.0}, "length_penalty"),
        ({"temperature": 1.0}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"stop": "a"}, "stop"),
        ({"must_contain": ("",)}, "must_contain"),
        ({"length_rule": "means"}, "length_rule"),
        ({"length_penalty": 30.0}, "length_penalty"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError) as error:
        searched(**options)
    assert error.value.option == option


def test_searches_that_cannot_work_are_refused(network: Decoder) -> None:
    for options, option in (
        ({"num_beams": 500}, "num_beams"),
        ({"must_contain": "abc", "must_not_contain": "b"}, "must_contain"),
        ({"must_contain": "x" * 30}, "must_contain"),
        ({"must_contain": ("abcdefgh", "ijklmnop")}, "must_contain"),
    ):
        with pytest.raises(ConfigError) as error:
            generate(network, BYTES, "Emma", searched(**options))
        assert error.value.option == option
