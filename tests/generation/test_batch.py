"""Many texts at once: each as it would be alone, whatever its neighbours are."""

from __future__ import annotations

import pytest
import torch

from insight.data.tokenizers import ByteTokenizer
from insight.generation import GenerationSettings, generate, generate_batch
from insight.models import Decoder, DecoderConfig, GroupedQueryAttention
from insight.runtime.errors import ConfigError

TOKENIZER = ByteTokenizer()
CONTEXT = 32
PROMPTS = ["Emma", "", "It is a truth", "x" * 20, "y" * 50]


@pytest.fixture(scope="module")
def network() -> Decoder:
    torch.manual_seed(0)
    attention = GroupedQueryAttention(num_heads=4, num_key_value_heads=2)
    config = DecoderConfig(hidden_size=32, num_layers=2, attention=attention, max_sequence_length=CONTEXT)
    return config.build(TOKENIZER.vocabulary_size).double()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("num_tokens", [3, 40])
def test_each_text_is_what_it_would_be_alone(network: Decoder, temperature: float, num_tokens: int) -> None:
    settings = GenerationSettings(max_new_tokens=num_tokens, temperature=temperature)
    batch = generate_batch(network, TOKENIZER, PROMPTS, settings, range(5))
    for seed, (prompt, result) in enumerate(zip(PROMPTS, batch, strict=True)):
        alone = generate(
            network,
            TOKENIZER,
            prompt,
            GenerationSettings(max_new_tokens=num_tokens, temperature=temperature, seed=seed),
        )
        assert result.token_ids == alone.token_ids
        assert (result.text, result.finish_reason) == (alone.text, alone.finish_reason)
        assert result.num_prompt_tokens == alone.num_prompt_tokens


def test_filters_and_stop_strings_hold_in_a_batch(network: Decoder) -> None:
    settings = GenerationSettings(max_new_tokens=30, temperature=1.5, top_k=40, seed=2)
    whole = generate(network, TOKENIZER, "Emma", settings).text
    stopping = GenerationSettings(max_new_tokens=30, temperature=1.5, top_k=40, stop=(whole[4:6],))
    stopped, other = generate_batch(network, TOKENIZER, ["Emma", "Anne Elliot"], stopping, [2, 3])
    assert (stopped.text, stopped.finish_reason) == (whole[: whole.index(whole[4:6])], "stop")
    assert len(other.token_ids) > 0


def test_equal_prompts_with_equal_seeds_write_the_same_in_one_batch(network: Decoder) -> None:
    settings = GenerationSettings(max_new_tokens=10, temperature=1.0)
    one, two, three = generate_batch(network, TOKENIZER, ["Emma"] * 3, settings, [7, 7, 8])
    assert one.text == two.text != three.text


def test_nothing_else_is_touched(network: Decoder) -> None:
    network.train()
    before = torch.get_rng_state()
    generate_batch(network, TOKENIZER, PROMPTS, GenerationSettings(max_new_tokens=2), range(5))
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training


def test_no_prompts_and_long_ones(network: Decoder) -> None:
    assert generate_batch(network, TOKENIZER, [], GenerationSettings(), []) == []
    with pytest.raises(ConfigError, match="shorten the prompt"):
        generate_batch(network, TOKENIZER, ["x" * 40], GenerationSettings(overflow="error"), [0])
