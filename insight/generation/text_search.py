"""Prompts → the likeliest texts that a decoder writes behind them, or several drawn at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from insight.data.tokenizers import BaseTokenizer
from insight.generation.constraints import Sentence
from insight.generation.modes import evaluation_mode
from insight.generation.packing import PackedWeights
from insight.generation.scorers import DecoderScorer
from insight.generation.scores import find_length_rule
from insight.generation.search import Hypothesis, SearchSettings, beam_search
from insight.generation.settings import GenerationSettings, Sampling
from insight.generation.text_constraints import TextConstraints
from insight.models import Decoder
from insight.runtime.errors import ConfigError

_LARGEST_BATCH = 32
"""Prompts that are searched side by side."""


@dataclass(frozen=True)
class PromptIds:
    """A prompt that a search continues.

    Args:
        text: The prompt.
        ids: The tokens that the network reads; not more than its context holds.
        seed: Seed of samples.
    """

    text: str
    ids: Sequence[int]
    seed: int


def search_settings(settings: GenerationSettings) -> SearchSettings:
    """The search that the options of a generation describe."""
    is_drawn = settings.num_beams is None and settings.temperature > 0
    sampling = None
    if is_drawn:
        filters = (settings.top_k, settings.top_p, settings.min_p)
        sampling = Sampling(settings.temperature, *filters, settings.seed)
    return SearchSettings(
        beam_size=settings.n_best if is_drawn else settings.num_beams or 1,
        num_best=settings.n_best,
        length_rule=find_length_rule(settings.length_rule, settings.length_penalty),
        no_repeat_ngram=settings.no_repeat_ngram,
        sampling=sampling,
    )


def decoding_signature(settings: GenerationSettings) -> str:
    """All options that decide the texts, in the form of sacrebleu's signatures."""
    parts = [search_settings(settings).signature, f"max:{settings.max_new_tokens}"]
    for name, texts in (("with", settings.must_contain), ("without", settings.must_not_contain)):
        parts += [f"{name}:{len(texts)}"] if texts else []
    return "|".join(parts)


def search_texts(
    network: Decoder, tokenizer: BaseTokenizer, prompts: Sequence[PromptIds], settings: GenerationSettings
) -> list[list[Hypothesis]]:
    """Search behind every prompt, each as it would be alone.

    A search ends where the context is full; nothing is forgotten meanwhile.

    Returns:
        The hypotheses of each prompt, best first.

    Raises:
        ConfigError: The beam is wider than the vocabulary, the constraints cannot be met, or the positions of
            the network allow no cache of that length.
        CheckpointError: The network's scores are not finite.
    """
    search, weights = search_settings(settings), PackedWeights(network)
    if search.beam_size > tokenizer.vocabulary_size and search.sampling is None:
        size = tokenizer.vocabulary_size
        problem, remedy = f"the vocabulary has {size} tokens", f"use at most {size}"
        raise ConfigError(problem, remedy, option="num_beams", value=search.beam_size)
    sentences = _sentences(network, tokenizer, prompts, settings)
    found: list[list[Hypothesis]] = [[] for _ in prompts]
    with evaluation_mode(network), weights.used(), torch.inference_mode():
        for batch in _batches(prompts):
            scorer = DecoderScorer(
                network,
                [prompts[index].ids for index in batch],
                max(sentences[index].max_length for index in batch) - 1,  # the last token is not read
                tokenizer.vocabulary_size,
                weights,
            )
            together = [sentences[index] for index in batch]
            results = beam_search(scorer, together, tokenizer.end_of_text_id, search)
            for index, hypotheses in zip(batch, results, strict=True):
                if not hypotheses:
                    option = "must_contain" if settings.must_contain else "must_not_contain"
                    problem = f"cannot be met in {sentences[index].max_length} tokens"
                    remedy = "loosen the constraints, or raise max_new_tokens or num_beams"
                    raise ConfigError(problem, remedy, option=option, value=getattr(settings, option))
                found[index] = hypotheses
    return found


def _sentences(
    network: Decoder, tokenizer: BaseTokenizer, prompts: Sequence[PromptIds], settings: GenerationSettings
) -> list[Sentence]:
    """The limits and constraints of each prompt's continuations."""
    constraints = TextConstraints(
        tokenizer, settings.must_not_contain, "raise max_new_tokens, or shorten text or prompt"
    )
    return [
        constraints.sentence(
            min(settings.max_new_tokens, network.config.max_sequence_length - len(prompt.ids) + 1),
            must_contain=settings.must_contain,
            before=prompt.text,
            context=tuple(prompt.ids),
            seed=prompt.seed,
        )
        for prompt in prompts
    ]


def _batches(prompts: Sequence[PromptIds]) -> Iterator[list[int]]:
    """The numbers of prompts that are equally long, some at a time."""
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.ids), []).append(index)
    for alike in by_length.values():
        for first in range(0, len(alike), _LARGEST_BATCH):
            yield alike[first : first + _LARGEST_BATCH]
