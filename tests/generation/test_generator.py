"""Writing with a network: cache against full passes, the context's end, reasons to stop."""

from __future__ import annotations

import pytest
import torch

from insight.data.tokenizers import ByteTokenizerConfig
from insight.generation import GenerationSettings, TextGenerator, generate, stream
from insight.models import Decoder, DecoderConfig, GroupedQueryAttention
from insight.runtime.errors import ConfigError

TOKENIZER = ByteTokenizerConfig().build([])
CONTEXT = 32


@pytest.fixture(scope="module")
def network() -> Decoder:
    torch.manual_seed(0)
    attention = GroupedQueryAttention(num_heads=4, num_key_value_heads=2)
    config = DecoderConfig(hidden_size=32, num_layers=2, attention=attention, max_sequence_length=CONTEXT)
    return config.build(TOKENIZER.vocabulary_size)


def greedy(**options: object) -> GenerationSettings:
    return GenerationSettings(temperature=0.0, **options)  # type: ignore[arg-type]


def test_cached_writing_equals_full_passes(network: Decoder) -> None:
    result = generate(network, TOKENIZER, "Emma", greedy(max_new_tokens=20))
    ids = [TOKENIZER.end_of_text_id, *TOKENIZER.encode("Emma")]
    network.eval()
    for token_id in result.token_ids:
        with torch.no_grad():
            scores = network.logits(network(torch.tensor([ids])))[0, -1]
        assert int(scores.argmax()) == token_id
        ids.append(token_id)


def test_stream_joins_to_the_same_text(network: Decoder) -> None:
    settings = GenerationSettings(max_new_tokens=25, temperature=1.5, seed=3)
    assert (
        "".join(stream(network, TOKENIZER, "Emma", settings))
        == generate(network, TOKENIZER, "Emma", settings).text
    )


def test_seed_repeats_and_changes_the_text(network: Decoder) -> None:
    texts = [
        generate(
            network, TOKENIZER, "Emma", GenerationSettings(temperature=1.5, seed=seed, max_new_tokens=20)
        ).text
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_global_random_state_and_mode_are_untouched(network: Decoder) -> None:
    network.train()
    before = torch.get_rng_state()
    generate(network, TOKENIZER, "Emma", GenerationSettings(max_new_tokens=5))
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training


def test_writing_slides_past_the_context(network: Decoder) -> None:
    result = generate(
        network, TOKENIZER, "Emma", GenerationSettings(max_new_tokens=3 * CONTEXT, temperature=1.0)
    )
    if result.finish_reason == "length":
        assert len(result.token_ids) == 3 * CONTEXT
    assert result.num_forgotten_tokens > 0


def test_long_prompt_keeps_its_newest_tokens(network: Decoder) -> None:
    prompt = "x" * 200 + "Emma Woodhouse"
    result = generate(network, TOKENIZER, prompt, greedy(max_new_tokens=4))
    short = generate(network, TOKENIZER, prompt[-CONTEXT // 2 :], greedy(max_new_tokens=4))
    assert result.num_prompt_tokens == len(prompt)
    assert result.num_forgotten_tokens == len(prompt) + 1 - CONTEXT // 2
    assert len(short.token_ids) == len(result.token_ids)


def test_error_overflow_names_the_numbers(network: Decoder) -> None:
    with pytest.raises(ConfigError) as error:
        TextGenerator(network, TOKENIZER, "x" * 50, greedy(overflow="error"))
    assert (error.value.option, error.value.value) == ("max_new_tokens", 200)
    with pytest.raises(ConfigError) as mistake:
        TextGenerator(network, TOKENIZER, "x" * 9, greedy(overflow="error", max_new_tokens=200))
    assert (mistake.value.option, mistake.value.value) == ("max_new_tokens", 200)
    assert "use max_new_tokens=23 or overflow=slide" in mistake.value.remedy
    generate(network, TOKENIZER, "x" * 9, greedy(overflow="error", max_new_tokens=23))


def test_empty_prompt_starts_a_document(network: Decoder) -> None:
    result = generate(network, TOKENIZER, "", greedy(max_new_tokens=3))
    assert result.num_prompt_tokens == 0
    assert 1 <= len(result.token_ids) <= 3


def test_stop_string_ends_the_text(network: Decoder) -> None:
    settings = GenerationSettings(temperature=1.0, max_new_tokens=30, seed=4)
    whole = generate(network, TOKENIZER, "Emma", settings).text
    stop = whole[5:7]
    stopped = generate(
        network,
        TOKENIZER,
        "Emma",
        GenerationSettings(temperature=1.0, max_new_tokens=30, seed=4, stop=(stop,)),
    )
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole[: whole.index(stop)]
