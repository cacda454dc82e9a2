"""Scores of translations equal those of sacrebleu's own command line."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sacrebleu.metrics.lib_ter import translation_edit_rate

from insight.runtime.errors import DataError
from insight.training import edit_rate
from insight.training.edit_rate import count_edits
from insight.training.translation_metrics import (
    NAMES,
    ScoredTranslations,
    SystemDifference,
    rarest_word_counts,
    score_translations,
)

REFERENCES = [
    "En el principio era el Verbo, y el Verbo era con Dios, y el Verbo era Dios.",
    "Este era en el principio con Dios.",
    "Todas las cosas por él fueron hechas; y sin él nada de lo que es hecho, fué hecho.",
    "En él estaba la vida, y la vida era la luz de los hombres.",
    "Y la luz en las tinieblas resplandece; mas las tinieblas no la comprendieron.",
    "Fué un hombre enviado de Dios, el cual se llamaba Juan.",
] * 5
FIRST = [text.replace("Verbo", "hombre").replace("tinieblas", "cosas") for text in REFERENCES]
OTHER = [" ".join(text.split()[: 3 + number % 9]) for number, text in enumerate(REFERENCES)]
CLOSE = [*REFERENCES[:2], *FIRST[2:9], *OTHER[9:10], *FIRST[10:]]


def _command_line(folder: Path, *options: str) -> str:
    systems = {"references": REFERENCES, "first": FIRST, "other": OTHER, "close": CLOSE}
    for name, lines in systems.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sacrebleu",
            "references",
            "-m",
            "bleu",
            "chrf",
            "ter",
            "--chrf-word-order",
            "2",
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _compare(first: list[str], other: list[str], **numbers: int) -> dict[str, SystemDifference]:
    scored = [ScoredTranslations(texts, REFERENCES) for texts in (first, other)]
    return scored[0].compare(scored[1], **numbers)


def test_scores_equal_the_command_line(tmp_path: Path) -> None:
    for system, name in ((FIRST, "first"), (OTHER, "other")):
        expected = json.loads(_command_line(tmp_path, "-i", name, "--confidence", "-w", "10"))
        scores = score_translations(system, REFERENCES)
        for metric, record in zip(NAMES, expected, strict=True):
            assert scores[metric].value == pytest.approx(record["score"], abs=1e-9)
            middle, half = record["confidence_mean"], record["confidence_var"]
            assert isinstance(middle, float)
            assert isinstance(half, float)
            assert scores[metric].low == pytest.approx(middle - half, abs=1e-5)
            assert scores[metric].high == pytest.approx(middle + half, abs=1e-5)
            assert "version:" in scores[metric].signature
    assert "nw:2" in scores["chrf"].signature  # word n-grams make chrF++ of chrF


def test_significance_equals_the_command_line(tmp_path: Path) -> None:
    """Also that a system does not differ from itself."""
    by_system = {
        name: _compare(FIRST, system, num_trials=500, num_resamples=300)
        for name, system in (("other", OTHER), ("close", CLOSE))
    }
    systems = ("-i", "first", "other", "close")
    expected = json.loads(
        _command_line(tmp_path, *systems, "--paired-ar", "--paired-ar-n", "500", "-w", "10")
    )
    labels = {"bleu": "BLEU", "chrf": "chrF2++", "ter": "TER"}
    for record in expected[1:]:
        differences = by_system[str(record["system"]).split()[-1]]
        for metric, label in labels.items():
            assert differences[metric].other == pytest.approx(record[label]["score"], abs=1e-9)
            assert differences[metric].p_value == pytest.approx(record[label]["p_value"], abs=1e-12)
            assert "bs:300|ar:500|" in differences[metric].signature
    # The command cannot write the results of this test as JSON.
    table = _command_line(tmp_path, *systems, "--paired-bs", "--paired-bs-n", "300", "-f", "text")
    p_values = re.findall(r"p = (\d\.\d{4})", table)
    found = [one.bootstrap_p_value for differences in by_system.values() for one in differences.values()]
    assert p_values == [f"{value:.4f}" for value in found]
    assert max(one.p_value for one in by_system["other"].values()) < 0.05
    assert max(one.p_value for one in by_system["close"].values()) > 0.05
    same = _compare(FIRST, FIRST, num_trials=50)["bleu"]
    assert same.p_value == same.bootstrap_p_value == 1.0


def _word_lists(seed: int) -> Iterator[tuple[list[str], list[str]]]:
    """Pairs of sentences, of which the second is often the first in another order."""
    choose = random.Random(seed)
    while True:
        known = choose.choice([2, 5, 20])
        first, other = ([str(choose.randrange(known)) for _ in range(choose.randrange(20))] for _ in range(2))
        if choose.random() < 0.5:
            middle, end = choose.randrange(len(first) + 1), choose.randrange(len(first) + 1)
            other = (first[middle:] + first[:middle])[:end]
        yield first, other


def test_edits_equal_sacrebleu() -> None:
    """Long sentences leave the band around the diagonal, and repetitions have too many shifts to try all."""
    examples = itertools.islice(_word_lists(3), 150)
    far_apart = ["a"] * 3, ["b"] * 160 + ["a"] * 3
    moved = [*map(str, range(40)), "a"], ["a", *map(str, range(50, 90))]
    repeated = ["a", "b"] * 7 + ["c"], ["c"] + ["b", "a"] * 8
    for first, other in (*examples, far_apart, moved, repeated, (["a"], []), ([], ["a"]), ([], [])):
        assert count_edits(first, other) == translation_edit_rate(first, other)


def test_another_choice_among_equal_edits_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: shifts are looked for where edits of equal cost are chosen in another order."""

    def deletions_first(words: list[str], goal: list[str], rows: list[list[int]]) -> str:
        edits, row, column = "", len(words), len(goal)
        while row or column:
            if row and rows[row][column] == rows[row - 1][column] + 1:
                edits, row = "i" + edits, row - 1
            elif column and rows[row][column] == rows[row][column - 1] + 1:
                edits, column = "d" + edits, column - 1
            else:
                row, column = row - 1, column - 1
                edits = (" " if words[row] == goal[column] else "s") + edits
        return edits

    monkeypatch.setattr(edit_rate, "_trace", deletions_first)
    pairs = itertools.islice(_word_lists(3), 150)
    assert any(count_edits(*pair) != translation_edit_rate(*pair) for pair in pairs)


def test_buckets_hold_every_sentence_once() -> None:
    scored = ScoredTranslations(FIRST, REFERENCES, ["chrf"])
    lengths = [len(text.split()) for text in REFERENCES]
    rarest = rarest_word_counts(REFERENCES, [*REFERENCES[:4], "hombre de Dios"])
    for values, limits in ((lengths, (8, 12)), (rarest, (0, 1, 10))):
        buckets = scored.buckets(values, limits, "words")
        assert sum(bucket.num_sentences for bucket in buckets) == len(REFERENCES)
        assert len({bucket.name for bucket in buckets}) == len(buckets) > 1
    short = [number for number, length in enumerate(lengths) if length <= 8]
    alone = score_translations([FIRST[n] for n in short], [REFERENCES[n] for n in short], ["chrf"])
    assert scored.buckets(lengths, (8, 12), "words")[0].scores == alone


def test_rarest_word_passes_over_punctuation() -> None:
    assert rarest_word_counts(["God, — the", "the", "—"], ["The God the", "the"]) == [1, 3, 0]


def test_sentences_are_ordered_and_wrong_numbers_refused() -> None:
    scored = ScoredTranslations([REFERENCES[0], "no"], [REFERENCES[0], REFERENCES[1]], ["chrf"])
    assert scored.of_sentences()[0] == pytest.approx(100)
    assert scored.of_sentences()[1] < 20
    with pytest.raises(DataError):
        score_translations([], [])
    with pytest.raises(DataError):
        score_translations(["one"], ["one", "two"])
