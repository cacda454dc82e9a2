"""Length and stop rules against beam searches that are written down from their papers and programs.

The three are plain loops over tuples in float64 and share nothing with the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from table_model import END, TableModel

from insight.generation import (
    CTranslate2Length,
    CTranslate2Stop,
    EnoughFinished,
    ExactStop,
    GNMTLength,
    LengthRule,
    MarianLength,
    SearchSettings,
    Sentence,
    StopRule,
    beam_search,
)

LONGEST, SIZE, SEEDS = 7, 11, range(40)
Found = list[tuple[tuple[int, ...], float]]
Extension = tuple[float, tuple[int, ...]]


def extensions(model: TableModel, seed: int, running: Sequence[Extension], margin: float) -> list[Extension]:
    """All extensions of running hypotheses, best first, without tokens that are far worse than the best."""
    found = []
    for total, tokens in running:
        scores = model.table(seed, tokens).tolist()
        least = max(scores) - margin
        found += [(total + one, (*tokens, token)) for token, one in enumerate(scores) if one >= least]
    return sorted(found, key=lambda extension: -extension[0])


def marian(seed: int, beam: int, num_best: int, normalize: float, word_penalty: float) -> Found:
    """marian-dev, ``translator/beam_search.cpp`` and ``history.h``.

    Each step takes as many extensions as hypotheses survive; those that end are scored with the number of
    steps and leave the beam, at the limit all of them.
    """
    model = TableModel([seed], SIZE)
    running: list[Extension] = [(0.0, ())]
    width, ended = beam, []
    for step in range(1, LONGEST + 1):
        taken = extensions(model, seed, running, 1e9)[:width]
        running = [one for one in taken if one[1][-1] != END]
        for total, tokens in taken if step == LONGEST else [one for one in taken if one[1][-1] == END]:
            ended.append((tokens, (total - word_penalty * step) / step**normalize))
        width = len(running)
    return sorted(ended, key=lambda one: -one[1])[:num_best]


def ctranslate2(seed: int, beam: int, num_best: int, length_penalty: float, patience: float) -> Found:
    """CTranslate2, ``src/decoding.cc``.

    Of twice as many candidates as beams, the ended ones among the first are taken, and the next that have not
    ended move into their places. Only the tokens before the end count as length.
    """
    model = TableModel([seed], SIZE)
    running: list[Extension] = [(0.0, ())]
    ended: Found = []
    best_has_ended = False
    for step in range(LONGEST):
        candidates = extensions(model, seed, running, 1e9)[: 2 * beam]
        others = iter([one for one in candidates[beam:] if one[1][-1] != END])
        running = []
        for rank, (total, tokens) in enumerate(candidates[:beam]):
            if tokens[-1] == END or step == LONGEST - 1:
                best_has_ended |= rank == 0
                length = len(tokens) - (tokens[-1] == END)
                # Theirs divides by zero where nothing was written before the end.
                ended.append((tokens, total / max(length, 1) ** length_penalty))
                running += [one for one in [next(others, None)] if one is not None]
            else:
                running.append((total, tokens))
        is_done = len(ended) >= round(beam * patience)
        if not length_penalty:
            is_done = best_has_ended and len(ended) >= num_best
        if is_done:
            break
    return sorted(ended, key=lambda one: -one[1])[:num_best]


def gnmt(seed: int, beam: int, num_best: int, alpha: float, margin: float) -> Found:
    """Wu et al. 2016, section 7: the length penalty of equation 14 and both kinds of pruning.

    The paper does not say what a step keeps nor when to stop. Here the ended ones among the best ``beam``
    extensions are taken, the best ``beam`` others go on, and the end is where the best of these would be
    pruned if it were complete.
    """
    model = TableModel([seed], SIZE)

    def penalty(length: int) -> float:
        return (5.0 + length) ** alpha / (5.0 + 1.0) ** alpha

    running: list[Extension] = [(0.0, ())]
    ended: Found = []
    for step in range(1, LONGEST + 1):
        found = extensions(model, seed, running, margin)
        taken = found[:beam] if step == LONGEST else [one for one in found[:beam] if one[1][-1] == END]
        ended += [(tokens, total / penalty(step)) for total, tokens in taken]
        best = max((score for _, score in ended), default=float("-inf"))
        ended = [one for one in ended if one[1] >= best - margin]
        running = [one for one in found if one[1][-1] != END][:beam]
        if not running or running[0][0] / penalty(step) < best - margin:
            break
    return sorted(ended, key=lambda one: -one[1])[:num_best]


RULES: list[tuple[Callable[..., Found], tuple[float, float], LengthRule, StopRule | None]] = [
    (marian, (1.0, 0.0), MarianLength(), None),
    (marian, (0.6, 0.3), MarianLength(0.6, 0.3), None),
    (marian, (0.0, 0.0), MarianLength(0.0), None),
    (ctranslate2, (1.0, 1.0), CTranslate2Length(), None),
    (ctranslate2, (0.6, 2.0), CTranslate2Length(0.6), CTranslate2Stop(2.0)),
    (ctranslate2, (0.0, 1.0), CTranslate2Length(0.0), None),
    (gnmt, (0.6, 3.0), GNMTLength(), None),
    (gnmt, (0.2, 3.0), GNMTLength(0.2), None),
]


def ours(seed: int, beam: int, num_best: int, rule: LengthRule, stop: StopRule | None) -> Found:
    settings = SearchSettings(beam, num_best, rule, stop)
    found = beam_search(TableModel([seed], SIZE), [Sentence(LONGEST)], END, settings)[0]
    return [((*one.token_ids, *[END] * one.is_finished), one.score) for one in found]


@pytest.mark.parametrize(("reference", "numbers", "rule", "stop"), RULES)
@pytest.mark.parametrize(("beam", "num_best"), [(2, 1), (4, 2), (5, 5)])
def test_a_search_equals_the_published_one(
    reference: Callable[..., Found],
    numbers: tuple[float, float],
    rule: LengthRule,
    stop: StopRule | None,
    beam: int,
    num_best: int,
) -> None:
    for seed in SEEDS:
        expected = reference(seed, beam, num_best, *numbers)
        found = ours(seed, beam, num_best, rule, stop)
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected], seed
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-12)


@pytest.mark.parametrize(
    ("reference", "numbers", "rule", "stop"),
    [
        (marian, (1.0, 0.0), MarianLength(), EnoughFinished()),
        (marian, (1.0, 0.0), CTranslate2Length(), MarianLength.published_stop),
        (ctranslate2, (1.0, 1.0), CTranslate2Length(), ExactStop()),
        (ctranslate2, (1.0, 1.0), MarianLength(), CTranslate2Stop()),
        (ctranslate2, (0.0, 1.0), CTranslate2Length(0.0), EnoughFinished()),
        (gnmt, (0.6, 3.0), GNMTLength(), ExactStop()),
        (gnmt, (0.6, 3.0), GNMTLength(0.5), None),
    ],
)
def test_another_rule_would_be_noticed(
    reference: Callable[..., Found], numbers: tuple[float, float], rule: LengthRule, stop: StopRule
) -> None:
    """The twin: with the stop rule or the length of another program, a text or a score is another."""
    assert any(reference(seed, 4, 2, *numbers) != ours(seed, 4, 2, rule, stop) for seed in SEEDS)
