"""Sentences → translations: an encoder-decoder with its tokenizers, searched by beams or sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import xxhash

from insight.data.tokenizers import BaseTokenizer
from insight.generation.constraints import Sentence
from insight.generation.modes import evaluation_mode
from insight.generation.packing import PackedWeights
from insight.generation.scorers import EncoderDecoderScorer
from insight.generation.search import Hypothesis, SearchSettings, beam_search
from insight.generation.text_constraints import TextConstraints, require_texts
from insight.models import EncoderDecoder
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number


@dataclass(frozen=True)
class TranslationSettings(Component):
    """How to translate.

    Args:
        search: How hypotheses are found and scored.
        max_length_factor: Most tokens of a translation for each token of its source ...
        max_length_offset: ... and so many more. Limits are those of each sentence, never of its batch.
        batch_tokens: Most padded source tokens that are translated side by side, beams not counted.
        must_not_contain: Texts that no translation contains, in any division into tokens.
        batch_size: Most sentences that are translated side by side; null for no bound.
    """

    search: SearchSettings = SearchSettings()
    max_length_factor: float = 2.0
    max_length_offset: int = 20
    batch_tokens: int = 2048
    must_not_contain: tuple[str, ...] = ()
    batch_size: int | None = None

    def __post_init__(self) -> None:
        require_number("batch_size", self.batch_size, 32, whole=True, optional=True, at_least=1)
        require_texts("must_not_contain", self.must_not_contain)
        require_number("max_length_factor", self.max_length_factor, 2, at_least=0, below=1e6)
        require_number("max_length_offset", self.max_length_offset, 20, whole=True, at_least=1, below=1e6)
        require_number("batch_tokens", self.batch_tokens, 2048, whole=True, at_least=1)

    @property
    def signature(self) -> str:
        """All settings that decide the translations: the signature of the search and the length rule."""
        parts = [self.search.signature, f"max:{self.max_length_factor:g}x+{self.max_length_offset}"]
        if self.must_not_contain:
            parts.append(f"without:{len(self.must_not_contain)}")
        return "|".join(parts)


@dataclass(frozen=True)
class Translation:
    """A translated sentence.

    Attributes:
        text: The best hypothesis.
        hypotheses: All hypotheses that were asked for with their texts, best first.
        num_source_tokens: Tokens of the source that were read.
        was_cut: Whether the source was longer than the network can read, so that its end was left out.
        signature: All settings that decided the translation, in the form of sacrebleu's signatures.
    """

    text: str
    hypotheses: tuple[tuple[str, Hypothesis], ...]
    num_source_tokens: int
    was_cut: bool
    signature: str = ""


class Translator:
    """Translates sentences, each as it would be alone, whatever the batch.

    Args:
        network: The model. It is in evaluation mode while it translates; every module's own mode comes back.
        source_tokenizer: The tokenizer of the source.
        tokenizer: The tokenizer of the target.
        tag_id: An id in front of every source, for models of both directions; ``None`` for no tag.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        source_tokenizer: BaseTokenizer,
        tokenizer: BaseTokenizer,
        tag_id: int | None = None,
    ) -> None:
        self.network = network
        self.source_tokenizer, self.tokenizer = source_tokenizer, tokenizer
        self._tag = [] if tag_id is None else [tag_id]
        self._weights = PackedWeights(network)

    def translate(
        self,
        texts: Sequence[str],
        settings: TranslationSettings = TranslationSettings(),
        prefixes: Sequence[str] | None = None,
        must_contain: Sequence[Sequence[str]] | None = None,
    ) -> list[Translation]:
        """Translate sentences in any number; the order is kept.

        Args:
            texts: The sentences. An empty one has the empty translation.
            settings: How to translate.
            prefixes: The text that each translation begins with.
            must_contain: Texts that each translation contains; one that begins with a letter or digit stands
                at the beginning of a word.

        Raises:
            ConfigError: The beam is wider than the vocabulary, an option has not one value for each sentence,
                or the constraints of a sentence contradict each other or its length.
            CheckpointError: The network's scores are not finite.
        """
        requests = self._requests(texts, settings, prefixes, must_contain)
        results = [Translation("", (), 0, False, settings.signature)] * len(texts)
        with evaluation_mode(self.network), self._weights.used(), torch.inference_mode():
            for batch in _batches(requests, settings):
                for request, translation in zip(batch, self._translated(batch, settings), strict=True):
                    results[request.index] = translation
        return results

    def _requests(
        self,
        texts: Sequence[str],
        settings: TranslationSettings,
        prefixes: Sequence[str] | None,
        must_contain: Sequence[Sequence[str]] | None,
    ) -> list[_Request]:
        """The sentences that are not empty, the longest first."""
        for name, values in (("prefixes", prefixes), ("must_contain", must_contain)):
            if values is not None and len(values) != len(texts):
                problem, remedy = f"there are {len(texts)} sentences", "give one value for each sentence"
                raise ConfigError(problem, remedy, option=name, value=f"{len(values)} values")
        beam_size, size = settings.search.beam_size, self.tokenizer.vocabulary_size
        if beam_size > size:
            problem, remedy = f"the vocabulary has {size} tokens", f"use at most {size}"
            raise ConfigError(problem, remedy, option="beam_size", value=beam_size)
        remedy = "raise max_length_offset or shorten it"
        constraints = TextConstraints(self.tokenizer, settings.must_not_contain, remedy)
        encoded = self.source_tokenizer.encode_batch(list(texts))
        requests = []
        for index, text in enumerate(texts):
            if not text.strip():
                continue
            ids = encoded.ids[encoded.offsets[index] : encoded.offsets[index + 1]].tolist()
            row = self._row(ids)
            longest = int(settings.max_length_factor * len(row) + settings.max_length_offset)
            sentence = constraints.sentence(
                min(longest, self.network.config.decoder.max_sequence_length - 1),
                prefixes[index] if prefixes is not None else "",
                must_contain[index] if must_contain is not None else (),
                seed=_seed(row, settings.search),
            )
            requests.append(_Request(index, text, row, len(ids) > self._most_source_tokens, sentence))
        return sorted(requests, key=lambda request: -len(request.row))

    def _translated(self, batch: Sequence[_Request], settings: TranslationSettings) -> Iterator[Translation]:
        """Translate sentences side by side."""
        sentences = [request.sentence for request in batch]
        end_id = self.tokenizer.end_of_text_id
        scorer = EncoderDecoderScorer(
            self.network,
            [request.row for request in batch],
            max(sentence.max_length for sentence in sentences),
            end_id,
            self.tokenizer.vocabulary_size,
            self._weights,
            settings.search.coverage_penalty > 0,
        )
        found = beam_search(scorer, sentences, end_id, settings.search)
        for request, hypotheses in zip(batch, found, strict=True):
            sentence = request.sentence
            if not hypotheses:
                option = "must_contain" if sentence.must_contain else "must_not_contain"
                problem = f"cannot be met in {sentence.max_length} tokens for {request.text[:40]!r}"
                remedy = "loosen the constraints or raise max_length_offset"
                raise ConfigError(problem, remedy, option=option, value="set")
            signature = settings.signature
            signature += "|prefix:yes" if sentence.prefix else ""
            signature += f"|with:{len(sentence.must_contain)}" if sentence.must_contain else ""
            pairs = tuple((self.tokenizer.decode(one.token_ids), one) for one in hypotheses)
            yield Translation(pairs[0][0], pairs, len(request.row), request.was_cut, signature)

    def source_ids(self, text: str) -> list[int]:
        """The token ids of a source as the network reads it: tag, text, as far as it fits, and end."""
        return self._row(self.source_tokenizer.encode(text))

    def is_cut(self, text: str) -> bool:
        """Whether a source is longer than the network reads, so that its end is left out."""
        return len(self.source_tokenizer.encode(text)) > self._most_source_tokens

    def _row(self, ids: list[int]) -> list[int]:
        return [*self._tag, *ids[: self._most_source_tokens], self.source_tokenizer.end_of_text_id]

    @property
    def _most_source_tokens(self) -> int:
        return self.network.config.encoder.max_sequence_length - 1 - len(self._tag)


@dataclass(frozen=True)
class _Request:
    """A sentence to translate: its place among the texts, and its source as the network reads it."""

    index: int
    text: str
    row: list[int]
    was_cut: bool
    sentence: Sentence


def _batches(requests: Sequence[_Request], settings: TranslationSettings) -> Iterator[Sequence[_Request]]:
    """Cut requests, the longest first, into batches."""
    start = 0
    while start < len(requests):
        count = max(1, settings.batch_tokens // len(requests[start].row))
        count = min(count, settings.batch_size or count)
        yield requests[start : start + count]
        start += count


def _seed(row: Sequence[int], search: SearchSettings) -> int:
    """The seed of a sentence's samples, which follows from its own tokens."""
    if search.sampling is None:
        return 0
    data = repr((search.sampling.seed, list(row))).encode()
    return xxhash.xxh3_64_intdigest(data) >> 1
