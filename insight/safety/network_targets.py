"""Insight's networks as models under test: those that continue text and those that translate."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from insight.generation.settings import GenerationSettings
from insight.runtime.errors import ConfigError
from insight.safety.records import Capability
from insight.safety.targets import Unanswered

if TYPE_CHECKING:
    from torch import nn

    from insight.data.tokenizers import BaseTokenizer
    from insight.generation.translator import Translation, TranslationSettings, Translator
    from insight.models import Decoder


def target_of_file(network: Decoder, tokenizer: BaseTokenizer, path: Path, name: str = "") -> NetworkTarget:
    """The target of a network read from ``path``, a checkpoint file or the folder of a quantized model.

    Its identity is a hash of the bytes there. The network is put into evaluation mode.
    """
    return NetworkTarget(network.eval(), tokenizer, name or str(path), _identity_of_file(path, network))


def translator_target_of_file(
    translator: Translator, languages: tuple[str, str], path: Path, name: str = ""
) -> TranslatorTarget:
    """As :func:`target_of_file`, for a model that translates."""
    identity = _identity_of_file(path, translator.network.eval())
    return TranslatorTarget(translator, languages, name or str(path), identity)


def _identity_of_file(path: Path, network: nn.Module) -> str:
    device = next((tensor.device.type for tensor in network.parameters()), "cpu")
    # Kinds of devices round differently, so their answers must not be mixed in one ledger.
    return path_identity(path) + ("" if device == "cpu" else f" on {device}")


def path_identity(path: Path) -> str:
    """SHA-256 of a checkpoint file, or of the files of an artefact folder with their names."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


class _OneAtATime:
    """The part that all networks share: one call runs at a time, since a network uses all cores.

    Its mode, which is restored afterwards as the global random state is, changes while it answers.
    """

    def __init__(self, name: str, identity: str) -> None:
        import torch

        self.name, self.identity = name, identity
        self._num_threads = torch.get_num_threads()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """One call at a time, with the same number of threads.

        OpenMP keeps that number per calling thread, and it changes the order of sums.
        """
        import torch

        with self._lock:
            if torch.get_num_threads() != self._num_threads:
                torch.set_num_threads(self._num_threads)
            yield

    def _likelihoods(
        self,
        compute: Callable[[Sequence[str], Sequence[Sequence[str]]], list[list[float]]],
        prompts: Sequence[str],
        continuations: Sequence[Sequence[str]],
    ) -> list[list[float] | Unanswered]:
        """Compute all items together; an item that does not fit into the context fails alone."""

        def alone(prompt: str, options: Sequence[str]) -> list[float] | Unanswered:
            try:
                return compute([prompt], [options])[0]
            except ConfigError as error:
                return Unanswered("error", error.problem)

        with self._running():
            try:
                return [*compute(prompts, continuations)]
            except ConfigError:
                return [alone(*one) for one in zip(prompts, continuations, strict=True)]


class NetworkTarget(_OneAtATime):
    """A network that continues text, and its tokenizer; the identity is that of its weights.

    It is for example a hash of their file.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "log_likelihood"})

    def __init__(self, network: Decoder, tokenizer: BaseTokenizer, name: str, identity: str) -> None:
        super().__init__(name, identity)
        self._network, self._tokenizer = network, tokenizer

    def generate(
        self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]
    ) -> list[str]:
        """Continue all prompts in one batch."""
        from insight.generation import generate_batch

        with self._running():
            generations = generate_batch(self._network, self._tokenizer, prompts, settings, seeds)
        return [generation.text for generation in generations]

    def log_likelihood(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float] | Unanswered]:
        """Compute shared prefixes once; an item that does not fit into the context fails alone."""
        from insight.generation import log_likelihoods

        compute = functools.partial(log_likelihoods, self._network, self._tokenizer)
        return self._likelihoods(compute, prompts, continuations)


class TranslatorTarget(_OneAtATime):
    """A network that translates, with its tokenizers; name and identity as for :class:`NetworkTarget`.

    A temperature of 0 stands for greedy search. A sentence that is longer than the network reads is an error,
    since its end, where an attack may stand, would be left out.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "log_likelihood", "complete"})

    def __init__(self, translator: Translator, languages: tuple[str, str], name: str, identity: str) -> None:
        super().__init__(name, identity)
        self.languages = languages
        self._translator = translator

    def generate(
        self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]
    ) -> list[str | Unanswered]:
        """Translate all prompts."""
        return self.complete(prompts, [""] * len(prompts), settings, seeds)

    def complete(
        self,
        prompts: Sequence[str],
        beginnings: Sequence[str],
        settings: GenerationSettings,
        seeds: Sequence[int],
    ) -> list[str | Unanswered]:
        """Translate with forced beginnings, which are neither returned nor counted in ``max_new_tokens``."""
        tokenizer = self._translator.tokenizer
        num_forced = [len(tokenizer.encode(text)) if text else 0 for text in beginnings]
        search = _search_settings(settings, settings.max_new_tokens + max(num_forced, default=0))
        with self._running():
            if settings.temperature == 0:
                found = self._translator.translate(prompts, search, beginnings)
            else:  # each prompt has a seed of its own
                one_by_one = zip(prompts, beginnings, seeds, strict=True)
                found = [
                    self._translator.translate([prompt], _with_seed(search, seed), [beginning])[0]
                    for prompt, beginning, seed in one_by_one
                ]

        def rest(translation: Translation, start: int) -> str | Unanswered:
            if translation.was_cut:
                problem = f"is longer than the {translation.num_source_tokens} tokens that the network reads"
                return Unanswered("error", f"the sentence {problem}")
            if not translation.hypotheses:  # of a blank prompt
                return ""
            ids = translation.hypotheses[0][1].token_ids[start:]
            return tokenizer.decode(ids[: settings.max_new_tokens])

        return [rest(*pair) for pair in zip(found, num_forced, strict=True)]

    def log_likelihood(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float] | Unanswered]:
        """The probabilities that a translation of the prompt begins with the continuations."""
        from insight.generation import translation_log_likelihoods

        compute = functools.partial(translation_log_likelihoods, self._translator)
        return self._likelihoods(compute, prompts, continuations)


def _search_settings(settings: GenerationSettings, num_tokens: int) -> TranslationSettings:
    """How to translate in at most so many tokens, by greedy search or at random."""
    from insight.generation.search import SearchSettings
    from insight.generation.settings import Sampling
    from insight.generation.translator import TranslationSettings

    sampling = None
    if settings.temperature > 0:
        sampling = Sampling(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    search = SearchSettings(beam_size=1, sampling=sampling)
    return TranslationSettings(search, max_length_factor=0.0, max_length_offset=num_tokens)


def _with_seed(settings: TranslationSettings, seed: int) -> TranslationSettings:
    search = settings.search
    assert search.sampling is not None
    sampling = dataclasses.replace(search.sampling, seed=seed)
    return dataclasses.replace(settings, search=dataclasses.replace(search, sampling=sampling))
