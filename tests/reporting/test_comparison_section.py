"""The compression section tells what was kept and why, and survives whatever the file holds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from insight.reporting import write_report
from insight.reporting.run_files import read_run_record
from insight.reporting.sections.comparison import build_benchmark, build_compression
from insight.runtime.json_files import write_object
from insight.runtime.run_folder import RunFolder

HOSTILE = '</script><script>document.title="hacked"</script><img src=x onerror=alert(1)>\x1b[2J\u202e'


def candidate(name: str, bits: float, size: int, rate: float, **others: Any) -> dict[str, Any]:
    return {
        "name": name,
        "method": name,
        "compiled": False,
        "status": "ok",
        "reason": "",
        "disk_bytes": size,
        "resident_bytes": None,
        "bits_per_byte": bits,
        "quality_difference": {"value": bits - 2.0, "low": bits - 2.001, "high": bits - 1.999},
        "prefill_seconds": 0.0123,
        "decode_seconds": 0.00084,
        "tokens_per_second": rate,
        "pareto": True,
        "modules_quantized": [],
        "modules_kept": [],
        **others,
    }


def report_of(**others: Any) -> dict[str, Any]:
    return {
        "format_version": 1,
        "chosen": "int8_dynamic",
        "reason": "the fastest under the bound",
        "max_quality_loss": 0.005,
        "machine": {"num_cores": 2, "accelerator_name": "A processor", "matmul_flops": {"float32": 1e11}},
        "candidates": [
            candidate("original", 2.0, 40_000_000, 100.0, quality_difference=None),
            candidate(
                "int8_dynamic",
                2.004,
                10_000_000,
                250.0,
                modules_quantized=["blocks.0.attention.output"],
                modules_kept=[{"name": "embedding", "reason": "a table that is looked up"}],
            ),
            {"name": "int8_static", "status": "refused", "reason": "no observer", "disk_bytes": None},
        ],
        **others,
    }


def write(run: RunFolder, report: Any) -> None:
    folder = run.path / "quantization"
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def page_of(run: RunFolder) -> str:
    """The page without its own scripts, which hold all sorts of text."""
    page = write_report(run).read_text(encoding="utf-8")
    return re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)


def test_the_page_tells_what_was_kept_and_why(finished_run: RunFolder) -> None:
    write(finished_run, report_of())
    page = " ".join(page_of(finished_run).split())
    for expected in (
        "The fastest under the bound.",
        "bits per byte that may be lost",
        "0.50%",
        "2.0040",
        "+0.0030 to +0.0050",
        "10 MB",
        "12.3 ms",
        "840 µs",
        "kept, on the Pareto front",
        "int8_static: no observer",
        "int8_dynamic: 1 module changed, 1 kept",
        "a table that is looked up",
        "blocks.0.attention.output",
        "100 GFLOP/s (measured)",
        'id="chart-compression-size"',
        'id="chart-compression-speed"',
    ):
        assert expected in page, expected


def test_without_a_reason_the_numbers_speak(finished_run: RunFolder) -> None:
    write(finished_run, report_of(reason=None))
    expected = "Kept int8_dynamic: 0.25 of the size, 2.50 times as fast at writing, +0.20% bits per byte."
    assert expected in page_of(finished_run)


def test_a_model_that_was_left_alone(finished_run: RunFolder) -> None:
    write(finished_run, report_of(chosen="original", reason=""))
    assert "The model was left as it is." in page_of(finished_run)


def test_a_run_without_compression_has_no_section(finished_run: RunFolder) -> None:
    assert build_compression(read_run_record(finished_run)) is None
    assert 'id="compression"' not in page_of(finished_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        "chosen",
        "reason",
        "max_quality_loss",
        "machine",
        "candidates",
        "name",
        "status",
        "disk_bytes",
        "bits_per_byte",
        "quality_difference",
        "tokens_per_second",
        "modules_quantized",
        "modules_kept",
        "pareto",
    ],
)
@pytest.mark.parametrize("wrong", [None, [], 3, -1.5, "text", {"a": None}, {"value": "x"}, [{}], [3], True])
def test_any_value_may_be_of_an_unexpected_kind(finished_run: RunFolder, key: str, wrong: object) -> None:
    report = report_of()
    if key in report:
        report[key] = wrong
    else:
        for entry in report["candidates"]:
            entry[key] = wrong
    write(finished_run, report)
    section = build_compression(read_run_record(finished_run))
    if section is not None:
        for chart in section.charts:
            json.dumps(chart.to_item(), allow_nan=False)


def test_a_damaged_file_has_no_section(finished_run: RunFolder) -> None:
    write(finished_run, report_of())
    (finished_run.path / "quantization" / "report.json").write_bytes(b"\xff{")
    assert build_compression(read_run_record(finished_run)) is None


def hostile_report() -> dict[str, Any]:
    return report_of(
        chosen=HOSTILE,
        reason=HOSTILE,
        machine={HOSTILE: HOSTILE},
        candidates=[
            candidate("original", 2.0, 4, 1.0),
            candidate(
                HOSTILE,
                2.0,
                4,
                1.0,
                modules_quantized=[HOSTILE],
                modules_kept=[{"name": HOSTILE, "reason": HOSTILE}],
            ),
            {"name": HOSTILE, "status": HOSTILE, "reason": HOSTILE},
        ],
    )


def test_hostile_names_are_shown_and_do_nothing(finished_run: RunFolder) -> None:
    write(finished_run, hostile_report())
    page = page_of(finished_run)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img" not in page
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_hostile_names_would_be_noticed(finished_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: without the templates' escaping the test above fails."""
    from insight.reporting import report

    write(finished_run, hostile_report())
    environment = report._environment(10_000)
    environment.autoescape = False
    monkeypatch.setattr(report, "_environment", lambda _: environment)
    assert "<img" in page_of(finished_run)


FASTER = {"speeds": [{"batch_size": 1, "tokens_per_second": 200.0}]}
WORSE = {"value": 0.1, "low": 0.05, "high": 0.2}
SLOWER = {"speeds": [{"batch_size": 1, "tokens_per_second": 50.0}]}


def benchmarked(run: RunFolder, **second: Any) -> str:
    first = {"name": "big", "bits_per_byte": 2.0, "weight_bytes": 4e6}
    first |= {"speeds": [{"batch_size": 1, "tokens_per_second": 100.0}]}
    other = {**first, "name": "small", **second}
    write_object(run.summary_path, {"models": [first, other]})
    section = build_benchmark(read_run_record(run))
    assert section is not None
    colors = [{point.color for point in chart.points} for chart in section.charts]  # type: ignore[union-attr]
    assert all(len(found) == 2 for found in colors)  # a colour for each model
    (sentence,) = section.content["sentences"]
    return str(sentence)


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        ({"weight_bytes": 1e6, **FASTER}, "So small is the better one."),
        (
            {"quality_difference": WORSE, **SLOWER},
            "So big is the better one.",
        ),
        ({"weight_bytes": 1e6, **SLOWER}, "So neither is better in everything."),
        ({"quality_difference": {"value": 0.1, "low": -0.1, "high": 0.2}}, "So no difference was found."),
        ({"weight_bytes": None, "speeds": None}, "could not be compared"),
        ({"weight_bytes": 1e6}, "4.00 times smaller, not faster at writing. So small is the better one."),
    ],
)
def test_a_sentence_says_which_model_is_better(
    finished_run: RunFolder, second: dict[str, Any], verdict: str
) -> None:
    assert verdict in benchmarked(finished_run, **second)
