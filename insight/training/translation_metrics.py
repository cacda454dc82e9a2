"""BLEU, chrF++ and TER of translations through sacrebleu, their intervals, and whether two systems differ.

Every figure comes from sacrebleu on detokenized text, and every score carries sacrebleu's signature (Post
2018, arXiv 1804.08771). The sentences of several ranks are gathered first: scores are never averaged.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from insight.runtime.errors import DataError

NAMES = {"bleu": "BLEU", "chrf": "chrF++", "ter": "TER"}
"""Names of the metrics as options and records write them, and as people read them."""
LOWER_IS_BETTER = ("ter",)


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
        signature: The settings that decide score and test, as sacrebleu prints them.
    """

    first: float
    other: float
    p_value: float
    signature: str


def score_translations(
    hypotheses: Sequence[str],
    references: Sequence[str],
    metrics: Iterable[str] = tuple(NAMES),
    num_resamples: int = 1000,
) -> dict[str, TranslationScore]:
    """Score translations against one reference each.

    Args:
        hypotheses: The translations, detokenized.
        references: The reference of each.
        metrics: Names out of :data:`NAMES`.
        num_resamples: Bootstrap resamples of the intervals; 1 draws none.

    Returns:
        The score by metric.

    Raises:
        DataError: There is no sentence, or the numbers of sentences differ.
    """
    _check(hypotheses, references)
    scores = {}
    for name in metrics:
        metric = _metric(name)
        found = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=num_resamples)
        # sacrebleu's interval is centred on the mean of the resamples.
        low, high = (
            (float(found._mean) - float(found._ci), float(found._mean) + float(found._ci))
            if num_resamples > 1
            else (found.score,) * 2
        )
        scores[name] = TranslationScore(found.score, low, high, str(metric.get_signature()))
    return scores


def compare_translations(
    first: Sequence[str],
    other: Sequence[str],
    references: Sequence[str],
    metrics: Iterable[str] = tuple(NAMES),
    num_trials: int = 10_000,
) -> dict[str, SystemDifference]:
    """Test whether two systems differ on the same sentences by more than chance.

    Args:
        first: Translations of the first system, the baseline.
        other: Translations of the other system.
        references: The reference of each sentence.
        metrics: Names out of :data:`NAMES`.
        num_trials: Trials of the randomisation.

    Returns:
        The difference by metric; equal to ``sacrebleu REF -i FIRST OTHER --paired-ar``, but 1 where both
        systems give the same sentences.

    Raises:
        DataError: There is no sentence, or the numbers of sentences differ.
    """
    from sacrebleu.significance import PairedTest

    _check(first, references)
    _check(other, references)
    names = list(metrics)
    # It tells on standard error what it does, line by line.
    logging.getLogger("sacrebleu").setLevel(logging.WARNING)
    test = PairedTest(
        [("first", list(first)), ("other", list(other))],
        {name: _metric(name) for name in names},
        [list(references)],
        test_type="ar",
        n_samples=num_trials,
    )
    signatures, results = test()
    differences = {}
    for name, label in zip(names, signatures, strict=True):  # its own labels, in the order given
        baseline, system = results[label]
        assert not isinstance(baseline, str)
        assert not isinstance(system, str)
        # sacrebleu counts trials that differ by more than the systems do: equal ones would get the least p.
        p_value = 1.0 if list(first) == list(other) else float(system.p_value or 0.0)
        differences[name] = SystemDifference(baseline.score, system.score, p_value, str(signatures[label]))
    return differences


def sentence_scores(hypotheses: Sequence[str], references: Sequence[str]) -> list[float]:
    """chrF++ of each sentence by itself, which orders sentences from worst to best."""
    metric = _metric("chrf")
    return [
        metric.sentence_score(hypothesis, [reference]).score
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]


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


def scores_by_length(
    hypotheses: Sequence[str], references: Sequence[str], limits: Sequence[int] = (10, 20, 30, 50)
) -> list[Bucket]:
    """Scores by the number of words of the reference."""
    return _buckets(hypotheses, references, [len(text.split()) for text in references], limits, "words")


def scores_by_rarest_word(
    hypotheses: Sequence[str],
    references: Sequence[str],
    training_targets: Iterable[str],
    limits: Sequence[int] = (0, 1, 10, 100),
) -> list[Bucket]:
    """Scores by how often the rarest word of the reference occurs in the training targets."""
    counts = Counter(word for text in training_targets for word in _words(text))
    rarest = [min((counts[word] for word in _words(text)), default=0) for text in references]
    return _buckets(hypotheses, references, rarest, limits, "times in training")


def _words(text: str) -> list[str]:
    return ["".join(filter(str.isalnum, word)) for word in text.casefold().split()]


def _buckets(
    hypotheses: Sequence[str],
    references: Sequence[str],
    values: Sequence[int],
    limits: Sequence[int],
    unit: str,
) -> list[Bucket]:
    places = np.searchsorted(np.asarray(limits), np.asarray(values), side="left")
    buckets = []
    for number in range(len(limits) + 1):
        chosen = np.flatnonzero(places == number).tolist()
        if not chosen:
            continue
        low = 0 if number == 0 else limits[number - 1] + 1
        if number == len(limits):
            name = f"more than {limits[-1]} {unit}"
        else:
            name = (
                f"{limits[number]} {unit}" if low == limits[number] else f"{low} to {limits[number]} {unit}"
            )
        pairs = [hypotheses[index] for index in chosen], [references[index] for index in chosen]
        buckets.append(Bucket(name, len(chosen), score_translations(*pairs, ("bleu", "chrf"), 1)))
    return buckets


def _metric(name: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    makers: dict[str, Callable[[], Any]] = {"bleu": BLEU, "chrf": lambda: CHRF(word_order=2), "ter": TER}
    return makers[name]()


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not references:
        raise DataError("there is no sentence to score", "give a text with at least one pair of sentences")
    if len(hypotheses) != len(references):
        raise DataError(
            f"there are {len(hypotheses)} translations and {len(references)} references",
            "score the translations of exactly these sentences",
        )
