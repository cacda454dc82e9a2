"""Many texts at once: each as it would be alone, whatever its neighbours are."""

from __future__ import annotations

import copy

import pytest
import torch

from insight.data.tokenizers import ByteTokenizer
from insight.generation import GenerationSettings, generate, generate_batch, log_likelihoods, stream
from insight.models import (
    Decoder,
    DecoderConfig,
    DynamicNTKScaling,
    GroupedQueryAttention,
    LongRopeScaling,
    Rope,
    RopeScaling,
)
from insight.runtime.errors import CheckpointError, ConfigError

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
        assert result == alone


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
    network.get_submodule("blocks.1").eval()  # as a user does who freezes a part
    modes = {name: module.training for name, module in network.named_modules()}
    before = torch.get_rng_state()
    settings = GenerationSettings(max_new_tokens=2)
    generate_batch(network, TOKENIZER, PROMPTS, settings, range(5))
    generate(network, TOKENIZER, "Emma", settings)
    log_likelihoods(network, TOKENIZER, ["Emma"], [[" Woodhouse"]])
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: module.training for name, module in network.named_modules()} == modes
    network.eval()


ORIGINAL_LENGTH = 8
STALE_KEYS = {
    "dynamic": DynamicNTKScaling(factor=4.0, original_length=ORIGINAL_LENGTH),
    "long": LongRopeScaling(
        factor=4.0,
        original_length=ORIGINAL_LENGTH,
        short_factors=(1.0,) * 4,
        long_factors=(1.0, 2.0, 3.0, 4.0),
    ),
}


@pytest.mark.parametrize("scaling", STALE_KEYS.values(), ids=STALE_KEYS)
@pytest.mark.parametrize("num_tokens", [3, 20, 40])
def test_positions_whose_keys_go_stale_write_what_reading_anew_would(
    scaling: RopeScaling, num_tokens: int
) -> None:
    torch.manual_seed(0)
    attention = GroupedQueryAttention(num_heads=4, position=Rope(scaling=scaling))
    config = DecoderConfig(hidden_size=32, num_layers=2, attention=attention, max_sequence_length=CONTEXT)
    network = config.build(TOKENIZER.vocabulary_size).double()
    with pytest.raises(ConfigError):  # or there would be nothing to get around
        network.make_cache(1, ORIGINAL_LENGTH + 1)
    settings = GenerationSettings(max_new_tokens=num_tokens, temperature=0.0)
    ids = [TOKENIZER.end_of_text_id, *TOKENIZER.encode("Emm")]
    expected: list[int] = []
    while len(expected) < num_tokens and TOKENIZER.end_of_text_id not in expected:
        with torch.no_grad():
            expected.append(int(network.logits(network(torch.tensor([ids])))[0, -1].argmax()))
        ids = [*ids, expected[-1]]
        ids = ids[-CONTEXT // 2 :] if len(ids) > CONTEXT else ids
    assert list(generate(network, TOKENIZER, "Emm", settings).token_ids) == expected
    batch = generate_batch(network, TOKENIZER, ["Anne Elliot", "Emm"], settings, [0, 0])
    assert list(batch[1].token_ids) == expected


def test_a_damaged_network_is_refused_not_written_with(network: Decoder) -> None:
    damaged = copy.deepcopy(network)
    with torch.no_grad():
        damaged.get_parameter("norm.weight")[0] = float("nan")
    for settings in (GenerationSettings(), GenerationSettings(temperature=0.0)):
        with pytest.raises(CheckpointError, match="not finite"):
            generate(damaged, TOKENIZER, "Emma", settings)
        with pytest.raises(CheckpointError, match="not finite"):
            next(stream(damaged, TOKENIZER, "Emma", settings))
        with pytest.raises(CheckpointError, match="not finite"):
            generate_batch(damaged, TOKENIZER, ["Emma", "Anne"], settings, [0, 1])
    with pytest.raises(CheckpointError, match="not finite"):
        log_likelihoods(damaged, TOKENIZER, ["Emma"], [[" Woodhouse"]])


def test_a_head_that_is_wider_than_the_tokenizer_writes_known_tokens_only(network: Decoder) -> None:
    torch.manual_seed(0)
    wide = network.config.build(TOKENIZER.vocabulary_size + 63).double()
    settings = GenerationSettings(max_new_tokens=60, temperature=5.0)
    texts = generate_batch(wide, TOKENIZER, ["Emma"] * 4, settings, range(4))
    ids = {token_id for text in texts for token_id in text.token_ids}
    assert len(ids) > 50
    assert max(ids) < TOKENIZER.vocabulary_size
    assert log_likelihoods(wide, TOKENIZER, ["Emma"], [[" Woodhouse"]])[0][0] < 0
    with pytest.raises(ConfigError, match="the tokenizer has 257 tokens, the network 200"):
        generate(network.config.build(200), TOKENIZER, "Emma", settings)


def test_no_prompts_and_long_ones(network: Decoder) -> None:
    assert generate_batch(network, TOKENIZER, [], GenerationSettings(), []) == []
    with pytest.raises(ConfigError) as error:
        generate_batch(network, TOKENIZER, ["x" * 40], GenerationSettings(overflow="error"), [0])
    assert (error.value.option, error.value.value) == ("max_new_tokens", 200)
