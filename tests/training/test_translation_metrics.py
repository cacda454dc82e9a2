"""Scores of translations equal those of sacrebleu's own command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from insight.runtime.errors import DataError
from insight.training.translation_metrics import (
    NAMES,
    compare_translations,
    score_translations,
    scores_by_length,
    scores_by_rarest_word,
    sentence_scores,
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


def _command_line(folder: Path, *options: str) -> list[dict[str, object]]:
    for name, lines in (("references", REFERENCES), ("first", FIRST), ("other", OTHER)):
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
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_scores_equal_the_command_line(tmp_path: Path) -> None:
    for system, name in ((FIRST, "first"), (OTHER, "other")):
        expected = _command_line(tmp_path, "-i", name, "--confidence", "-w", "10")
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
    expected = _command_line(
        tmp_path, "-i", "first", "other", "--paired-ar", "--paired-ar-n", "500", "-w", "10"
    )
    differences = compare_translations(FIRST, OTHER, REFERENCES, num_trials=500)
    system = next(record for record in expected if str(record["system"]).endswith("other"))
    labels = {"bleu": "BLEU", "chrf": "chrF2++", "ter": "TER"}
    for metric, label in labels.items():
        record = system[label]
        assert isinstance(record, dict)
        assert differences[metric].other == pytest.approx(record["score"], abs=1e-9)
        assert differences[metric].p_value == pytest.approx(record["p_value"], abs=1e-12)
        assert differences[metric].p_value < 0.05
    same = compare_translations(FIRST, FIRST, REFERENCES, ["bleu"], num_trials=50)
    assert same["bleu"].p_value == 1.0


def test_buckets_hold_every_sentence_once() -> None:
    for buckets in (
        scores_by_length(FIRST, REFERENCES),
        scores_by_rarest_word(FIRST, REFERENCES, [*REFERENCES[:4], "hombre de Dios"]),
    ):
        assert sum(bucket.num_sentences for bucket in buckets) == len(REFERENCES)
        assert len({bucket.name for bucket in buckets}) == len(buckets) > 1


def test_sentences_are_ordered_and_wrong_numbers_refused() -> None:
    scores = sentence_scores([REFERENCES[0], "no"], [REFERENCES[0], REFERENCES[1]])
    assert scores[0] == pytest.approx(100)
    assert scores[1] < 20
    with pytest.raises(DataError):
        score_translations([], [])
    with pytest.raises(DataError):
        score_translations(["one"], ["one", "two"])
