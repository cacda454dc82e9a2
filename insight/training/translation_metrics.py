"""BLEU, chrF++ and TER of translations through sacrebleu, their intervals, and whether two systems differ.

Every figure follows from sacrebleu's statistics of detokenized sentences and carries its signature (Post
2018, arXiv 1804.08771). The statistics are counted once; resamples are matrix products with them. The
sentences of several ranks are gathered first: scores are never averaged.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import DataError

NAMES = {"bleu": "BLEU", "chrf": "chrF++", "ter": "TER"}
"""Names of the metrics as options and records write them, and as people read them."""
LOWER_IS_BETTER = ("ter",)

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TranslationScore:
    """One metric of a whole text.

    Attributes:
        value: The score of the corpus.
        low: Lower end of the 95% bootstrap interval; equal to ``value`` where none was drawn.
        high: Upper end of the interval.
        signature: The settings that decide the score, as sacrebleu prints them.
    """

    value: float
    low: float
    high: float
    signature: str


@dataclass(frozen=True)
class SystemDifference:
    """How another system differs from the first in one metric, on the same sentences.

    Attributes:
        first: Score of the first system.
        other: Score of the other one.
        p_value: Two-sided p-value of paired approximate randomisation (Riezler and Maxwell 2005).
        bootstrap_p_value: P-value of paired bootstrap resampling (Koehn 2004).
        signature: The settings that decide score and tests, as sacrebleu prints them.
    """

    first: float
    other: float
    p_value: float
    bootstrap_p_value: float
    signature: str


@dataclass(frozen=True)
class Bucket:
    """The sentences of one range of a property.

    Attributes:
        name: The range, for people.
        num_sentences: Sentences in it.
        scores: Score by metric.
    """

    name: str
    num_sentences: int
    scores: dict[str, TranslationScore]


class ScoredTranslations:
    """Translations with the statistics that all their scores follow from.

    Args:
        translations: The translations, detokenized.
        references: The reference of each.
        metrics: Names out of :data:`NAMES`.

    Raises:
        DataError: There is no sentence, or the numbers of sentences differ.
    """

    def __init__(
        self, translations: Sequence[str], references: Sequence[str], metrics: Iterable[str] = tuple(NAMES)
    ) -> None:
        if not references:
            raise DataError(
                "there is no sentence to score", "give a text with at least one pair of sentences"
            )
        if len(translations) != len(references):
            raise DataError(
                f"there are {len(translations)} translations and {len(references)} references",
                "score the translations of exactly these sentences",
            )
        self._translations = list(translations)
        self._metrics = {name: _metric(name) for name in metrics}
        # A row for each sentence: counts of matching n-grams and lengths, or of edits.
        self._statistics: dict[str, _Array] = {
            name: np.array(metric._extract_corpus_statistics(self._translations, [list(references)]), float)
            for name, metric in self._metrics.items()
        }

    def scores(
        self, num_resamples: int = 1000, chosen: Sequence[int] | None = None
    ) -> dict[str, TranslationScore]:
        """The score by metric.

        Args:
            num_resamples: Bootstrap resamples of the intervals; 1 draws none.
            chosen: Numbers of the sentences to score; ``None`` for all.
        """
        scores = {}
        num_sentences = len(self._translations) if chosen is None else len(chosen)
        times = _draw(num_sentences, num_resamples) if num_resamples > 1 else None
        for name, metric in self._metrics.items():
            statistics = self._statistics[name] if chosen is None else self._statistics[name][list(chosen)]
            value = _score(metric, statistics.sum(0))
            low = high = value
            signature = metric.get_signature()
            if times is not None:
                # sacrebleu's interval is centred on the mean of the resamples.
                middle, half = _interval(_resampled_scores(metric, statistics, times))
                low, high = middle - half, middle + half
                signature.update("bs", num_resamples)
                signature.update("seed", str(_seed()).lower())
            scores[name] = TranslationScore(value, low, high, str(signature))
        return scores

    def of_sentences(self, metric: str = "chrf") -> list[float]:
        """The score of each sentence by itself, which orders sentences from worst to best."""
        return [_score(self._metrics[metric], row) for row in self._statistics[metric]]

    def buckets(self, values: Sequence[int], limits: Sequence[int], unit: str) -> list[Bucket]:
        """Scores of the sentences in each range of a property; ranges without sentences are left out.

        Args:
            values: The property of each sentence.
            limits: Largest value of each range but the last, which has no end.
            unit: Unit of the values, for the names of the ranges.
        """
        places = np.searchsorted(np.asarray(limits), np.asarray(values), side="left")
        buckets = []
        for number in range(len(limits) + 1):
            chosen = np.flatnonzero(places == number).tolist()
            if not chosen:
                continue
            low = 0 if number == 0 else limits[number - 1] + 1
            if number == len(limits):
                name = f"more than {limits[-1]} {unit}"
            elif low == limits[number]:
                name = f"{low} {unit}"
            else:
                name = f"{low} to {limits[number]} {unit}"
            buckets.append(Bucket(name, len(chosen), self.scores(chosen=chosen)))
        return buckets

    def compare(
        self, other: ScoredTranslations, num_trials: int = 10_000, num_resamples: int = 1000
    ) -> dict[str, SystemDifference]:
        """Test whether another system differs on the same sentences by more than chance.

        Args:
            other: The translations of the other system, scored by the same metrics and references.
            num_trials: Trials of the randomisation.
            num_resamples: Resamples of the bootstrap.

        Returns:
            The difference by metric; p-values equal those of ``sacrebleu REF -i FIRST OTHER`` with
            ``--paired-ar`` and ``--paired-bs``, but are 1 where both systems give the same sentences.
        """
        num_sentences = len(self._translations)
        # The sentences that keep their system in each trial; the others change sides.
        kept = np.random.default_rng(_seed()).integers(2, size=(num_trials, num_sentences), dtype=bool)
        times = _draw(num_sentences, num_resamples)
        differences = {}
        for name, metric in self._metrics.items():
            first, second = self._statistics[name], other._statistics[name]
            values = _score(metric, first.sum(0)), _score(metric, second.sum(0))
            real = abs(values[0] - values[1])
            mixed = second.sum(0) + kept @ (first - second)
            trials = np.abs(_scores(metric, mixed) - _scores(metric, first.sum(0) + second.sum(0) - mixed))
            resampled = np.abs(
                _resampled_scores(metric, first, times) - _resampled_scores(metric, second, times)
            )
            p_values = _p_value(trials, real), _p_value(resampled - resampled.mean(), real)
            # Trials count that differ by more than the systems do: equal systems would get the least p.
            if self._translations == other._translations:
                p_values = 1.0, 1.0
            signature = metric.get_signature()
            for key, number in (("ar", num_trials), ("bs", num_resamples), ("seed", str(_seed()).lower())):
                signature.update(key, number)
            differences[name] = SystemDifference(*values, *p_values, str(signature))
        return differences


def score_translations(
    translations: Sequence[str],
    references: Sequence[str],
    metrics: Iterable[str] = tuple(NAMES),
    num_resamples: int = 1000,
) -> dict[str, TranslationScore]:
    """Score translations against one reference each; see :class:`ScoredTranslations`."""
    return ScoredTranslations(translations, references, metrics).scores(num_resamples)


def rarest_word_counts(texts: Sequence[str], training_texts: Iterable[str]) -> list[int]:
    """How often the rarest word of each text occurs in the training texts; 0 for a text without words."""
    counts = Counter(word for text in training_texts for word in _words(text))
    return [min((counts[word] for word in _words(text)), default=0) for text in texts]


def _words(text: str) -> list[str]:
    """The words without case and punctuation."""
    return list(filter(None, ("".join(filter(str.isalnum, word)) for word in text.casefold().split())))


def _metric(name: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    from insight.training.edit_rate import count_edits

    class CountedTER(TER):  # type: ignore[misc, unused-ignore]
        """TER whose edits are counted quickly."""

        def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[float]:
            return list(count_edits(hypothesis.split(), *ref_kwargs["ref_words"]))

    makers: dict[str, Callable[[], Any]] = {
        "bleu": BLEU,
        "chrf": lambda: CHRF(word_order=2),
        "ter": CountedTER,
    }
    return makers[name]()


def _seed() -> int | None:
    """sacrebleu's seed of resamples and trials, which an environment variable can change."""
    seed = os.environ.get("SACREBLEU_SEED", "12345").lower()
    return None if seed == "none" else int(seed)


def _score(metric: Any, summed: _Array) -> float:
    return float(metric._compute_score_from_stats(summed).score)


def _scores(metric: Any, summed: _Array) -> _Array:
    return np.array([_score(metric, row) for row in summed])


def _draw(num_sentences: int, num_resamples: int) -> _Array:
    """How often each bootstrap resample holds each sentence, ``(num_resamples, num_sentences)``."""
    shape = num_resamples, num_sentences
    drawn = np.random.default_rng(_seed()).choice(num_sentences, size=shape, replace=True)
    drawn += num_sentences * np.arange(num_resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=math.prod(shape)).reshape(shape).astype(float)


def _resampled_scores(metric: Any, statistics: _Array, times: _Array) -> _Array:
    # sacrebleu computes these scores with float32; the sums themselves are exact in both.
    return _scores(metric, (times @ statistics).astype(np.float32))


def _interval(scores: _Array) -> tuple[float, float]:
    """Mean and half the width of the middle 95%, as sacrebleu takes them."""
    ordered = np.sort(scores)
    cut = len(ordered) // 40
    return float(ordered.mean()), float(ordered[len(ordered) - cut - 1] - ordered[cut]) / 2


def _p_value(differences: _Array, real: float) -> float:
    return (int((differences > real).sum()) + 1) / (len(differences) + 1)
