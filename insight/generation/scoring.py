"""The likelihoods that a network gives to continuations of prompts."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from insight.data.tokenizers import BaseTokenizer
from insight.generation.modes import evaluation_mode
from insight.generation.sampler import require_finite
from insight.generation.translator import Translator
from insight.models import Decoder, EncoderStates
from insight.runtime.errors import ConfigError

# Most tokens of one pass through the network, padding included, and most rows of scores held at once.
_TOKENS_A_PASS = 4096
_SCORES_AT_ONCE = 1024
_Layer = Callable[[Tensor], Tensor]


def log_likelihoods(
    network: Decoder,
    tokenizer: BaseTokenizer,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[str]],
) -> list[list[float]]:
    """Natural logarithm of the probability of each continuation after its prompt, which begins a document.

    Prompt and continuation are tokenized as one text, and the condition is the tokens that the prompt and
    all its continuations have in common at their beginning. Where a token spans the end of the prompt, all
    continuations are therefore scored from the same place and can be compared. Shared tokens are computed
    once: continuations that differ only in their last token take one row. Rows are padded at their end,
    which causal attention does not see. The same call always gives the same numbers; with another set of
    rows the last bits may differ.

    Args:
        network: The model; its mode is restored.
        tokenizer: Its tokenizer.
        prompts: Beginnings of documents; may be empty. One that does not fit loses its beginning.
        continuations: At least one text for each prompt; none may be empty.

    Raises:
        ConfigError: A continuation is empty, or does not fit into the context with the token before it.
        CheckpointError: The network's scores are not finite.
    """
    cases = [
        _case(ids, start, network.config.max_sequence_length)
        for prompt, options in zip(prompts, continuations, strict=True)
        for ids, start in _tokenized(tokenizer, prompt, options)
    ]

    def read(ids: Tensor) -> Tensor:
        hidden: Tensor = network(ids.to(network.head_weight.device))
        return hidden

    with evaluation_mode(network), torch.inference_mode():
        found = iter(_sums(read, network.logits, tokenizer.vocabulary_size, cases))
    return [[next(found) for _ in options] for options in continuations]


def translation_log_likelihoods(
    translator: Translator, sources: Sequence[str], continuations: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Natural logarithm of the probability that a translation of a source begins with each of some texts.

    Each source is read once, and beginnings share computation as in :func:`log_likelihoods`.

    Args:
        translator: The model with its tokenizers.
        sources: Sentences to translate.
        continuations: At least one beginning of a translation for each source; none may be empty.

    Raises:
        ConfigError: A text is empty, or does not fit into what the network reads or writes.
        CheckpointError: The network's scores are not finite.
    """
    network, tokenizer = translator.network, translator.tokenizer
    device, context = network.decoder.head_weight.device, network.config.decoder.max_sequence_length
    cases = [
        [_case(ids, start, context) for ids, start in _tokenized(tokenizer, "", options)]
        for options in continuations
    ]
    for source in filter(translator.is_cut, sources):
        problem = f"{source[:40]!r} is longer than the network reads"
        raise ConfigError(problem, "use a shorter sentence", option="sources")
    found = []
    with evaluation_mode(network), torch.inference_mode():
        for source, own in zip(sources, cases, strict=True):
            states = network.encode(torch.tensor([translator.source_ids(source)], device=device))

            def read(ids: Tensor, states: EncoderStates = states) -> Tensor:
                repeated = states.states.expand(len(ids), -1, -1)
                return network.decode(ids.to(device), EncoderStates(repeated, states.mask))

            found.append(_sums(read, network.logits, tokenizer.vocabulary_size, own))
    return found


@dataclass(frozen=True)
class _Case:
    """One continuation: ``targets`` follow position ``first`` of the row that reads ``inputs``."""

    inputs: tuple[int, ...]
    first: int
    targets: tuple[int, ...]


def _tokenized(
    tokenizer: BaseTokenizer, prompt: str, continuations: Sequence[str]
) -> list[tuple[list[int], int]]:
    """For each continuation, all ids from the start of the document and the index where scoring begins."""
    if not all(continuations):
        raise ConfigError(f"an empty continuation of {prompt[:40]!r}", "give text to score")
    begin = [tokenizer.end_of_text_id]
    start = begin + (tokenizer.encode(prompt) if prompt else [])
    encoded = tokenizer.encode_batch([prompt + continuation for continuation in continuations])
    ids, offsets = encoded.ids.tolist(), encoded.offsets.tolist()
    whole = [begin + ids[first:stop] for first, stop in itertools.pairwise(offsets)]
    columns = enumerate(zip(start, *whole, strict=False))
    shared = next(
        (index for index, column in columns if len(set(column)) > 1), min(map(len, (start, *whole)))
    )
    return [(ids, shared) for ids in whole]


def _case(ids: list[int], start: int, context: int) -> _Case:
    if len(ids) - start > context:
        problem = f"a continuation of {len(ids) - start} tokens: the context holds {context}"
        raise ConfigError(f"{problem} (max_sequence_length)", "use shorter continuations")
    dropped = max(0, len(ids) - 1 - context)
    return _Case(tuple(ids[dropped:-1]), start - dropped - 1, tuple(ids[start:]))


def _passes(rows: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Group rows of similar length, so that there is little padding."""
    passes: list[list[tuple[int, ...]]] = []
    for row in sorted(rows, key=len):  # stable, and the last row of a pass is its longest
        if passes and (len(passes[-1]) + 1) * len(row) <= _TOKENS_A_PASS:
            passes[-1].append(row)
        else:
            passes.append([row])
    # A compiled network would need another graph for a single row, so a single last row gets a neighbour.
    if len(passes) > 1 and len(passes[-1]) == 1 and len(passes[-2]) > 2:
        passes[-1].insert(0, passes[-2].pop())
    return passes


def _sums(read: _Layer, logits: _Layer, num_tokens: int, cases: Sequence[_Case]) -> list[float]:
    """The log-probability of each case, from the hidden states that ``read`` computes of rows of ids."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for index, case in enumerate(cases):
        rows.setdefault(case.inputs, []).append(index)
    sums = [0.0] * len(cases)
    for chosen in _passes(list(rows)):
        _score(read, logits, num_tokens, [(row, rows[row]) for row in chosen], cases, sums)
    return sums


def _score(
    read: _Layer,
    logits: _Layer,
    num_tokens: int,
    chosen: list[tuple[tuple[int, ...], list[int]]],
    cases: Sequence[_Case],
    sums: list[float],
) -> None:
    """Add to ``sums`` the log-probabilities of the cases whose rows one pass reads."""
    padded = torch.zeros(len(chosen), len(chosen[-1][0]), dtype=torch.int64)
    # One row of scores for each position that something is predicted from, however many cases need it.
    lines: dict[tuple[int, int], int] = {}
    wanted: list[tuple[int, int, int]] = []
    for index, (row, indices) in enumerate(chosen):
        padded[index, : len(row)] = torch.tensor(row)
        for case in indices:
            for position, target in enumerate(cases[case].targets, cases[case].first):
                wanted.append((lines.setdefault((index, position), len(lines)), target, case))
    wanted.sort()
    hidden = read(padded)
    device = hidden.device
    positions = torch.tensor(list(lines), device=device)
    at = 0
    for first in range(0, len(lines), _SCORES_AT_ONCE):
        some = positions[first : first + _SCORES_AT_ONCE]
        scores = logits(hidden[some[:, 0], some[:, 1]])[:, :num_tokens]
        require_finite(scores)
        log_probabilities = scores.float().log_softmax(-1)
        stop = bisect.bisect_left(wanted, (first + len(some),), at)
        part = torch.tensor(wanted[at:stop], device=device)
        values = log_probabilities[part[:, 0] - first, part[:, 1]].tolist()
        for (_, _, case), value in zip(wanted[at:stop], values, strict=True):
            sums[case] += value
        at = stop
