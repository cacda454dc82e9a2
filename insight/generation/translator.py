"""Sentences → translations: an encoder-decoder with its tokenizers, searched by beams or sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from insight.data.tokenizers import BaseTokenizer
from insight.generation.constraints import Sentence
from insight.generation.generator import evaluation_mode
from insight.generation.scorers import EncoderDecoderScorer
from insight.generation.search import Hypothesis, SearchSettings, beam_search
from insight.models import EncoderDecoder
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class TranslationSettings(Component):
    """How to translate.

    Args:
        search: How hypotheses are found and scored.
        max_length_factor: Most tokens of a translation for each token of its source ...
        max_length_offset: ... and so many more. Limits are those of each sentence, never of its batch.
        batch_tokens: Most padded source tokens that are translated side by side, beams not counted.
        must_not_contain: Texts that no translation contains.
    """

    search: SearchSettings = SearchSettings()
    max_length_factor: float = 2.0
    max_length_offset: int = 20
    batch_tokens: int = 2048
    must_not_contain: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("max_length_factor", 0), ("max_length_offset", 1), ("batch_tokens", 1)):
            value = getattr(self, name)
            if not least <= value < 1e6:
                raise ConfigError(
                    f"must be at least {least}", f"use {least or 2} or more", option=name, value=value
                )

    @property
    def signature(self) -> str:
        """All settings that decide the translations: the signature of the search and the length rule."""
        return f"{self.search.signature}|max:{self.max_length_factor:g}x+{self.max_length_offset}"


@dataclass(frozen=True)
class Translation:
    """A translated sentence.

    Attributes:
        text: The best hypothesis.
        hypotheses: All hypotheses that were asked for with their texts, best first.
        num_source_tokens: Tokens of the source that were read.
        was_cut: Whether the source was longer than the network can read, so that its end was left out.
    """

    text: str
    hypotheses: tuple[tuple[str, Hypothesis], ...]
    num_source_tokens: int
    was_cut: bool


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
            must_contain: Texts that each translation contains.

        Raises:
            ConfigError: The constraints of a sentence cannot be met within its length.
            CheckpointError: The network's scores are not finite.
        """
        results: list[Translation | None] = [None] * len(texts)
        for index, translation in self._translated(texts, settings, prefixes, must_contain):
            results[index] = translation
        return [translation for translation in results if translation is not None]

    def _translated(
        self,
        texts: Sequence[str],
        settings: TranslationSettings,
        prefixes: Sequence[str] | None,
        must_contain: Sequence[Sequence[str]] | None,
    ) -> Iterator[tuple[int, Translation]]:
        encoded = self.source_tokenizer.encode_batch(list(texts))
        ids = [
            encoded.ids[start:stop].tolist()
            for start, stop in zip(encoded.offsets, encoded.offsets[1:], strict=False)
        ]
        most = self._most_source_tokens
        order = sorted(
            (index for index in range(len(texts)) if texts[index].strip()),
            key=lambda index: (-len(ids[index]), index),
        )
        for index in range(len(texts)):
            if not texts[index].strip():
                yield index, Translation("", (), 0, False)
        start = 0
        while start < len(order):
            width = min(len(ids[order[start]]), most) + 1 + len(self._tag)
            chosen = order[start : start + max(1, settings.batch_tokens // width)]
            start += len(chosen)
            rows = [self._row(ids[index]) for index in chosen]
            sentences = [
                self._sentence(
                    len(row),
                    settings,
                    prefixes[index] if prefixes else "",
                    must_contain[index] if must_contain else (),
                )
                for row, index in zip(rows, chosen, strict=True)
            ]
            with evaluation_mode(self.network), torch.inference_mode():
                scorer = EncoderDecoderScorer(
                    self.network,
                    rows,
                    max(one.max_length for one in sentences),
                    self.tokenizer.end_of_text_id,
                    self.tokenizer.vocabulary_size,
                )
                found = beam_search(scorer, sentences, self.tokenizer.end_of_text_id, settings.search)
            for index, row, hypotheses in zip(chosen, rows, found, strict=True):
                if not hypotheses:
                    raise ConfigError(
                        "cannot be met within the length of the translation",
                        "loosen the constraints or raise max_length_offset",
                        option="must_contain",
                        value=texts[index][:40],
                    )
                pairs = tuple((self.tokenizer.decode(one.token_ids), one) for one in hypotheses)
                yield index, Translation(pairs[0][0], pairs, len(row), len(ids[index]) > most)

    def source_ids(self, text: str) -> list[int]:
        """The token ids of a source as the network reads it: tag, text, as far as it fits, and end."""
        return self._row(self.source_tokenizer.encode(text))

    def _row(self, ids: list[int]) -> list[int]:
        return [*self._tag, *ids[: self._most_source_tokens], self.source_tokenizer.end_of_text_id]

    @property
    def _most_source_tokens(self) -> int:
        return self.network.config.encoder.max_sequence_length - 1 - len(self._tag)

    def _sentence(
        self, source_length: int, settings: TranslationSettings, prefix: str, must_contain: Sequence[str]
    ) -> Sentence:
        longest = int(settings.max_length_factor * source_length + settings.max_length_offset)
        return Sentence(
            min(longest, self.network.config.decoder.max_sequence_length - 1),
            tuple(self.tokenizer.encode(prefix)) if prefix else (),
            tuple(tuple(self.tokenizer.encode(text)) for text in must_contain),
            tuple(tuple(self.tokenizer.encode(text)) for text in settings.must_not_contain),
        )
