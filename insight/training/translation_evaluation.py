"""The evaluation of translated text: scores, buckets, sentences, alignments, and the files that hold them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from insight.generation.alignment import Alignment, align
from insight.generation.translator import Translation, Translator
from insight.runtime.errors import DataError
from insight.runtime.files import atomic_write_text
from insight.runtime.json_files import to_line, write_object
from insight.training.translation_metrics import (
    NAMES,
    Bucket,
    ScoredTranslations,
    TranslationScore,
    rarest_word_counts,
)

LENGTH_LIMITS = (10, 20, 30, 50)
FREQUENCY_LIMITS = (0, 5, 20, 100)
_ALIGNED = 3
"""How many of the best and of the worst sentences are aligned."""
_ALIGNED_TOKENS = range(6, 49)
"""Numbers of tokens with which a sentence makes a picture that shows something."""


@dataclass(frozen=True)
class TranslatedSentence:
    """One sentence of an evaluation, as it stands in ``translations/test.jsonl``.

    Attributes:
        source: The sentence.
        reference: Its translation in the text.
        translation: The translation of the model.
        chrf: chrF++ of this sentence alone.
        score: The search's score of the translation; ``None`` for an empty source.
        source_tokens: Tokens of the source that were read, its end included.
        tokens: Tokens of the translation, without its end.
        was_cut: Whether the source was longer than the network can read.
    """

    source: str
    reference: str
    translation: str
    chrf: float
    score: float | None
    source_tokens: int
    tokens: int
    was_cut: bool


@dataclass(frozen=True)
class TranslationEvaluation:
    """Translations of a split with their scores, and what explains them.

    Attributes:
        split: The split of the data.
        decoding: The decoding signature: all settings that decide the translations.
        sentences: Every sentence, in the order of the text.
        scores: Score of the whole by metric.
        by_length: Scores by the number of tokens of the source.
        by_rarest_word: Scores by how often the rarest word of the source occurs in the training text; empty
            where the training text is not there.
        alignments: Alignments of some sentences by their number in ``sentences``.
    """

    split: str
    decoding: str
    sentences: Sequence[TranslatedSentence]
    scores: Mapping[str, TranslationScore]
    by_length: Sequence[Bucket] = ()
    by_rarest_word: Sequence[Bucket] = ()
    alignments: Mapping[int, Alignment] | None = None

    @property
    def intervals(self) -> dict[str, tuple[tuple[float, float], int]]:
        """The 95% interval and the number of sentences by the logged name of each metric."""
        return {
            f"{self.split}/{name}": ((score.low, score.high), len(self.sentences))
            for name, score in self.scores.items()
        }

    def table(self) -> list[str]:
        """The scores for people, a line each."""
        rows = [
            f"{NAMES[name]:8} {score.value:5.1f}   {score.low:5.1f} to {score.high:.1f}"
            for name, score in self.scores.items()
        ]
        signatures = [f"{NAMES[name]}: {score.signature}" for name, score in self.scores.items()]
        head = f"{self.split}: {len(self.sentences):,} sentences; score and 95% bootstrap interval"
        return [head, *rows, *signatures, f"decoding: {self.decoding}"]

    def write(self, folder: Path) -> None:
        """Write ``SPLIT.jsonl`` with a line for each sentence, and ``SPLIT.json`` with everything else.

        Raises:
            OutputError: A file cannot be written.
        """
        lines = "".join(to_line(asdict(sentence)) for sentence in self.sentences)
        atomic_write_text(folder / f"{self.split}.jsonl", lines)
        write_object(folder / f"{self.split}.json", self._summary())

    def _summary(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "num_sentences": len(self.sentences),
            "decoding": self.decoding,
            "scores": _plain_scores(self.scores),
            "buckets": {
                "source tokens": _plain_buckets(self.by_length),
                "rarest source word": _plain_buckets(self.by_rarest_word),
            },
            "alignments": [
                {
                    "sentence": number,
                    **asdict(alignment),
                    "weights": [[round(weight, 4) for weight in row] for row in alignment.weights],
                }
                for number, alignment in (self.alignments or {}).items()
            ],
        }


def evaluate_translations(
    split: str,
    translator: Translator,
    decoding: str,
    sources: Sequence[str],
    references: Sequence[str],
    translations: Sequence[Translation],
    training_sources: Iterable[str],
) -> TranslationEvaluation:
    """Evaluate the translations of a split.

    Args:
        split: The split of the data.
        translator: The model that translated, whose attention is shown.
        decoding: Its decoding signature.
        sources: The sentences.
        references: The reference of each.
        translations: The translation of each.
        training_sources: The source sentences that it was trained on, for the frequency of words; where
            reading them raises :class:`DataError`, no such scores are given.

    Raises:
        DataError: There is no sentence.
    """
    texts = [translation.text for translation in translations]
    scored = ScoredTranslations(texts, references)
    chrf = scored.of_sentences()
    lengths = [translation.num_source_tokens for translation in translations]
    by_rarest_word: Sequence[Bucket] = ()
    with contextlib.suppress(DataError):  # a checkpoint may be tested where its training text is not
        counts = rarest_word_counts(sources, training_sources)
        by_rarest_word = scored.buckets(counts, FREQUENCY_LIMITS, "times in training")
    sentences = [
        TranslatedSentence(
            source,
            reference,
            translation.text,
            score,
            translation.hypotheses[0][1].score if translation.hypotheses else None,
            translation.num_source_tokens,
            len(_tokens(translation)),
            translation.was_cut,
        )
        for source, reference, translation, score in zip(sources, references, translations, chrf, strict=True)
    ]
    return TranslationEvaluation(
        split,
        decoding,
        sentences,
        scored.scores(),
        scored.buckets(lengths, LENGTH_LIMITS, "tokens"),
        by_rarest_word,
        _alignments(translator, sources, translations, chrf),
    )


def _alignments(
    translator: Translator, sources: Sequence[str], translations: Sequence[Translation], chrf: Sequence[float]
) -> dict[int, Alignment]:
    """The alignments of the best and the worst sentences whose length fits a picture."""
    fitting = [
        number
        for number, translation in enumerate(translations)
        if len(_tokens(translation)) in _ALIGNED_TOKENS and translation.num_source_tokens in _ALIGNED_TOKENS
    ]
    order = sorted(fitting, key=lambda number: (-chrf[number], number))
    chosen = list(dict.fromkeys([*order[:_ALIGNED], *order[-_ALIGNED:]]))
    tokenizers = translator.source_tokenizer, translator.tokenizer
    ids = [(translator.source_ids(sources[number]), _tokens(translations[number])) for number in chosen]
    return dict(zip(chosen, align(translator.network, tokenizers, ids), strict=True))


def _tokens(translation: Translation) -> tuple[int, ...]:
    return translation.hypotheses[0][1].token_ids if translation.hypotheses else ()


def _plain_scores(scores: Mapping[str, TranslationScore]) -> dict[str, dict[str, Any]]:
    return {
        name: {"value": score.value, "interval": [score.low, score.high], "signature": score.signature}
        for name, score in scores.items()
    }


def _plain_buckets(buckets: Sequence[Bucket]) -> list[dict[str, Any]]:
    return [
        {"name": bucket.name, "num_sentences": bucket.num_sentences, "scores": _plain_scores(bucket.scores)}
        for bucket in buckets
    ]
