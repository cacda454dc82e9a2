"""A network of Insight as a target: a checkpoint, a quantized artefact, or one in the middle of training."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from insight.generation import GenerationSettings, generate_batch, log_likelihoods
from insight.runtime.errors import ConfigError
from insight.safety.records import Capability
from insight.safety.targets.base import Unanswered

if TYPE_CHECKING:
    from insight.data.tokenizers import BaseTokenizer
    from insight.models import Decoder


class NetworkTarget:
    """A network and its tokenizer.

    One call runs at a time: a network uses all cores, and its mode is switched while it answers.

    Args:
        network: The model; its mode and the global random state are left as they were.
        tokenizer: Its tokenizer.
        name: For people.
        identity: Exactly which weights, e.g. a hash of their file.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "log_likelihood"})

    def __init__(self, network: Decoder, tokenizer: BaseTokenizer, name: str, identity: str) -> None:
        self.name = name
        self.identity = identity
        self._network = network
        self._tokenizer = tokenizer
        self._num_threads = torch.get_num_threads()
        self._lock = threading.Lock()

    def generate(
        self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]
    ) -> list[str]:
        """The prompts side by side."""
        with self._lock:
            self._use_the_same_threads()
            generations = generate_batch(self._network, self._tokenizer, prompts, settings, seeds)
        return [generation.text for generation in generations]

    def log_likelihood(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float] | Unanswered]:
        """What the continuations share is computed once; what does not fit into the context fails alone."""
        with self._lock:
            self._use_the_same_threads()
            try:
                return [*log_likelihoods(self._network, self._tokenizer, prompts, continuations)]
            except ConfigError:
                return [self._alone(*one) for one in zip(prompts, continuations, strict=True)]

    def _alone(self, prompt: str, continuations: Sequence[str]) -> list[float] | Unanswered:
        try:
            return log_likelihoods(self._network, self._tokenizer, [prompt], [continuations])[0]
        except ConfigError as error:
            return Unanswered("error", error.problem)

    def _use_the_same_threads(self) -> None:
        # OpenMP keeps the number per calling thread, and sums are split by it.
        if torch.get_num_threads() != self._num_threads:
            torch.set_num_threads(self._num_threads)
