"""The speed at which networks read a prompt and generate tokens, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from insight.generation.generator import cache_for
from insight.generation.modes import evaluation_mode
from insight.models import Decoder
from insight.optimization.measurement.settings import check_batch_sizes, check_lengths
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

Contender = TypeVar("Contender")


def turns(contenders: Sequence[Contender], round_index: int) -> list[Contender]:
    """The order of the contenders in a round.

    Every second round is reversed, and every pair of rounds starts one contender later: A B, B A, B A, A B.
    Slow drifts (a falling clock rate, other processes) then affect all contenders alike, and none always
    follows the same other one.
    """
    shift = round_index // 2 % max(1, len(contenders))
    order = [*contenders[shift:], *contenders[:shift]]
    return order[::-1] if round_index % 2 else order


# The first round compiles; the second may compile again, with the sizes that change.
_WARM_UP_ROUNDS = 2
_LEAST_ROUNDS = 4
_SEED = 0


@dataclass(frozen=True)
class Speed:
    """The speed of a network at one batch size: medians and 95th percentiles over rounds and steps.

    Prefill is the time to read the prompts and choose the first new tokens, decode that of a step that adds
    one token to every sequence. ``tokens_per_second`` counts the new tokens of all sequences while
    decoding.
    """

    batch_size: int
    prefill_seconds_p50: float
    prefill_seconds_p95: float
    decode_seconds_p50: float
    decode_seconds_p95: float
    tokens_per_second: float
    num_rounds: int


def measure_speed(
    networks: Mapping[str, Decoder],
    *,
    batch_sizes: Sequence[int] = (1, 8),
    prompt_length: int = 128,
    num_new_tokens: int = 32,
    seconds: float,
) -> dict[str, list[Speed]]:
    """Time networks in turns on greedy continuations of random prompts, with a cache.

    All measured rounds together, at least four, take that many seconds, without warm-up and compiling.

    Returns:
        For each name one :class:`Speed` per batch size, in their order.

    Raises:
        ConfigError: A number is below 1, or prompt and new tokens do not fit into a network's context.
    """
    _check(networks, batch_sizes, prompt_length, num_new_tokens, seconds)
    vocabulary = min(network.vocabulary_size for network in networks.values())
    measured: dict[str, list[Speed]] = {name: [] for name in networks}
    for batch_size in batch_sizes:
        generator = torch.Generator().manual_seed(_SEED)
        prompts = torch.randint(vocabulary, (batch_size, prompt_length), generator=generator)
        rounds = _measure(networks, prompts, num_new_tokens, seconds / len(batch_sizes))
        for name, timings in rounds.items():
            measured[name].append(_summary(batch_size, np.asarray(timings, dtype=np.float64)))
    return measured


def _measure(
    networks: Mapping[str, Decoder], prompts: torch.Tensor, num_new_tokens: int, seconds: float
) -> dict[str, list[list[float]]]:
    """For each network and round the seconds of the prompt and of every step after it."""
    timings: dict[str, list[list[float]]] = {name: [] for name in networks}
    for network in networks.values():
        for _ in range(_WARM_UP_ROUNDS):
            _one_round(network, prompts, num_new_tokens)
    end = time.perf_counter() + seconds
    index = 0
    # An even number of rounds, so that every network comes early as often as late.
    while index < _LEAST_ROUNDS or index % 2 or time.perf_counter() < end:
        for name in turns(list(networks), index):
            timings[name].append(_one_round(networks[name], prompts, num_new_tokens))
        index += 1
    return timings


@torch.inference_mode()
def _one_round(network: Decoder, prompts: torch.Tensor, num_new_tokens: int) -> list[float]:
    device = network.embedding.weight.device
    cache = cache_for(network, len(prompts), prompts.shape[1] + num_new_tokens)
    text = unread = prompts.to(device)
    with evaluation_mode(network):
        _wait_for(device)
        marks = [time.perf_counter()]
        for _ in range(1 + num_new_tokens):
            hidden = network(unread, cache=cache)
            chosen = network.logits(hidden[:, -1]).argmax(-1, keepdim=True)
            unread = chosen
            if cache is None:  # every step then reads the whole text
                text = unread = torch.cat([text, chosen], dim=1)
            _wait_for(device)
            marks.append(time.perf_counter())
    steps: list[float] = np.diff(marks).tolist()
    return steps


def _summary(batch_size: int, timings: npt.NDArray[np.float64]) -> Speed:
    """Quantiles of ``timings`` ``(rounds, 1 + steps)``."""
    prefill, decode = timings[:, 0], timings[:, 1:]
    rates = batch_size * decode.shape[1] / decode.sum(axis=1)
    prefill_50, prefill_95 = np.quantile(prefill, (0.5, 0.95)).tolist()
    decode_50, decode_95 = np.quantile(decode, (0.5, 0.95)).tolist()
    rate = float(np.median(rates))
    return Speed(batch_size, prefill_50, prefill_95, decode_50, decode_95, rate, len(timings))


def _wait_for(device: torch.device) -> None:
    """Wait until an accelerator, which runs asynchronously, has finished."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _check(
    networks: Mapping[str, Decoder],
    batch_sizes: Sequence[int],
    prompt_length: int,
    num_new_tokens: int,
    seconds: float,
) -> None:
    if not networks:
        raise ConfigError("there is no network to time", "name at least one")
    check_batch_sizes(batch_sizes)
    require_number("prompt_length", prompt_length, 32, whole=True, at_least=1)
    require_number("num_new_tokens", num_new_tokens, 32, whole=True, at_least=1)
    require_number("seconds", seconds, 10, at_least=0)
    for name, network in networks.items():
        check_lengths(prompt_length, num_new_tokens, network.config.max_sequence_length, f"context of {name}")
