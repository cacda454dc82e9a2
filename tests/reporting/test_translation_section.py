"""The translation section shows scores, sentences and alignments, and survives any file and any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_report import is_inert, outline, visible

from insight.reporting import Metric, update_summary
from insight.reporting.run_files import read_run_record
from insight.reporting.sections.translation import build_translation
from insight.runtime.json_files import append_record, write_object
from insight.runtime.run_folder import RunFolder

HOSTILE = (
    '</script></style><script>document.title="hacked"</script><img src=x onerror="1">'
    "\x1b[2J\u202e\u200f\ud800"
)
SCORES = {
    "bleu": {"value": 24.24, "interval": [23.1, 25.4], "signature": "nrefs:1|tok:13a"},
    "chrf": {"value": 45.51, "interval": [44.6, 46.4], "signature": "nc:6|nw:2"},
    "ter": {"value": 62.0, "interval": [60.0, 64.0], "signature": "tok:tercom"},
}


TEXT = "In the beginning was the Word"


def write_translations(run: RunFolder, text: str = TEXT, num_words: int = 6) -> None:
    """Thirty sentences, the evaluation of them, and validations; ``text`` is every text."""
    for number in range(30):
        sentence = {"source": text, "reference": f"{text} r{number}", "translation": f"{text} t{number}"}
        append_record(run.translations / "test.jsonl", {**sentence, "chrf": 20.0 + number, "score": -0.5})
    buckets = [
        {"name": "0 to 10 tokens", "num_sentences": 12, "scores": SCORES},
        {"name": "more than 10 tokens", "num_sentences": 18, "scores": SCORES},
    ]
    weights = [[float(row == column) for column in range(num_words)] for row in range(num_words)]
    words = (text.split() * num_words)[:num_words]
    alignment = {"sentence": 29, "source": words, "target": words, "weights": weights, "layer": 1, "head": 2}
    summary = {
        "scores": SCORES,
        "decoding": "beam:5|score:sum/L^1",
        "buckets": {"source tokens": buckets, "rarest source word": buckets},
        "alignments": [alignment] * 6,
    }
    write_object(run.translations / "test.json", summary)
    for step in (20, 40, 60):
        values = {"validation/bleu": step / 10, "validation/chrf": step / 2}
        append_record(run.metrics_path, {"step": step, "seconds": step * 0.5, **values})


def content_of(run: RunFolder) -> dict[str, Any]:
    section = build_translation(read_run_record(run))
    assert section is not None
    return section.content


def test_scores_sentences_and_alignments_are_shown(finished_run: RunFolder) -> None:
    write_translations(finished_run)
    text = visible(outline(finished_run))
    for expected in (
        "30 sentences were translated that it has never seen: chrF++ 45.5 (95% interval 44.6 to 46.4).",
        "24.2 23.1 to 25.4",
        "nrefs:1|tok:13a",
        "beam:5|score:sum/L^1",
        "0 to 10 tokens 12 45.5 44.6 to 46.4 24.2 23.1 to 25.4",
        "The 10 best sentences by chrF++ chrF++ 49.0 Source In the beginning was the Word Reference",
        "In the beginning was the Word t29",
        "The 10 worst sentences by chrF++ chrF++ 20.0",
        "decoder layer 2, head 3",
    ):
        assert expected in text, expected
    section = build_translation(read_run_record(finished_run))
    assert section is not None
    assert [chart.identifier for chart in section.charts] == [
        "chart-translation",
        "chart-buckets-0",
        "chart-buckets-1",
    ]
    picture = section.content["alignments"][0]
    assert picture["rows"][1] == ("the", ["", "1.00", "", "", "", ""])


def test_the_headline_is_that_of_the_translations(finished_run: RunFolder) -> None:
    """The scores stand in this section alone, and bits per byte among the other figures."""
    write_translations(finished_run)
    update_summary(finished_run.summary_path, {"test/chrf": Metric(45.512, (44.6, 46.4), 30)})
    text = visible(outline(finished_run))
    assert "45.5 chrF++ on the test text, which it has never seen (95% interval 44.6 to 46.4)" in text
    assert "test chrf" not in text
    assert "Bits per byte" in text


def test_few_sentences_are_not_both_best_and_worst(finished_run: RunFolder) -> None:
    for number, chrf in enumerate((50.0, 10.0, 90.0)):
        record = {"source": "s", "reference": "r", "translation": f"t{number}", "chrf": chrf}
        append_record(finished_run.translations / "test.jsonl", record)
    groups = content_of(finished_run)["groups"]
    found = {group["name"]: [one["translation"] for one in group["sentences"]] for group in groups}
    assert found == {"best": ["t2", "t0"], "worst": ["t1"]}


def test_a_run_without_translations_has_no_section(finished_run: RunFolder) -> None:
    assert build_translation(read_run_record(finished_run)) is None


@pytest.mark.parametrize("damaged", ["test.json", "test.jsonl"])
def test_any_file_may_be_damaged(tmp_path: Path, damaged: str) -> None:
    run = RunFolder(tmp_path)
    write_translations(run)
    (run.translations / damaged).write_bytes(b'{"scores": [1, {"bleu": \xff')
    assert "Over training" in visible(outline(run, (build_translation,)))


@pytest.mark.parametrize("key", ["scores", "buckets", "alignments", "decoding"])
def test_entries_of_an_unexpected_kind(tmp_path: Path, key: str) -> None:
    run = RunFolder(tmp_path)
    append_record(run.translations / "test.jsonl", {"chrf": 3.0, "source": 1, "translation": ["x"]})
    for wrong in (1, "text", [1, "x", None], {"bleu": 1, "a": [{"scores": 2}]}, [[["x"]]], None):
        write_object(run.translations / "test.json", {"scores": SCORES, key: wrong})
        assert "The 1 best sentence by" in visible(outline(run, (build_translation,)))


def test_an_alignment_that_does_not_fit_is_left_out(finished_run: RunFolder) -> None:
    write_translations(finished_run)
    fits = {"sentence": 99, "source": ["a", "b"], "target": ["c"], "weights": [[0.5, 0.5]]}
    wrong = [{**fits, "weights": [[0.5]]}, {**fits, "weights": []}, {**fits, "weights": [["x", None]]}, {}]
    write_object(finished_run.translations / "test.json", {"alignments": [*wrong, fits]})
    shown = content_of(finished_run)["alignments"]
    assert [picture["rows"] for picture in shown] == [[("c", ["", ""])], [("c", ["1.00", "1.00"])]]
    assert shown[-1]["sentence"] is None


def test_hostile_sentences_do_nothing(finished_run: RunFolder, tmp_path: Path) -> None:
    write_translations(finished_run, HOSTILE)
    page = outline(finished_run)
    assert is_inert(page)
    assert "document.title=" in visible(page)
    assert not set("\x1b\u202e\u200f\ud800") & set(visible(page))
