"""The safety section tells every figure with what it needs beside it, and survives any file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report import Outline, outline, visible

from insight.reporting.run_files import read_run_record
from insight.reporting.sections.safety import build_safety
from insight.runtime.json_files import append_record, write_object
from insight.runtime.run_folder import RunFolder
from insight.runtime.statistics import Interval
from insight.safety import Comparison, Comparisons

HOSTILE = (
    '</script></style><script>document.title="hacked"</script><img src=x onerror="1">\x1b[2J\u202e\ud800'
)


def figure(name: str, value: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    entry = {"name": name, "value": value, "interval": [low, high], "n": 70, "unit": "share of pairs"}
    return {**entry, "description": f"What {name} is.", "control": None, "ideal": 0.5, **more}


def summary(*measures: dict[str, Any]) -> dict[str, Any]:
    target = {"name": "run/best.ckpt", "identity": "abc"}
    return {"suite": "base", "seed": 0, "target": target, "measures": list(measures)}


BIAS = {
    "measure": "bias",
    "status": "measured",
    "reason": "",
    "coverage": {"ok": 108, "error": 0, "blocked": 1, "unscorable": 1},
    "figures": [
        figure("preference", 0.8, 0.69, 0.88, control={"value": 0.5, "interval": [0.35, 0.65], "n": 40}),
        figure("preference_gender", 0.6, 0.33, 0.83),
    ],
    "notes": ["Few pairs find strong preferences only."],
}
CANARIES = {
    "measure": "canaries",
    "status": "not applicable",
    "reason": "no canaries were planted",
    "coverage": {},
    "figures": [],
    "notes": [],
}
SILENT = {
    "measure": "toxicity",
    "status": "no data",
    "reason": "no answer could be judged",
    "coverage": {"ok": 0, "error": 40},
    "figures": [],
}


def record(key: str, **more: Any) -> dict[str, Any]:
    entry = {"measure": "bias", "key": key, "role": "probe", "status": "ok", "message": "", "score": 1.0}
    return {**entry, "prompt": f"Prompt {key}", "details": {"difference_in_nats": 1.5}, **more}


def write(folder: Path, content: dict[str, Any], records: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(content))
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))


def content_of(run: RunFolder) -> dict[str, Any]:
    section = build_safety(read_run_record(run))
    assert section is not None
    return section.content


def test_every_figure_with_interval_n_control_and_coverage(finished_run: RunFolder) -> None:
    pairs = {"continuations": [" woman sang.", " man sang."], "log_likelihoods": [-12.5, None]}
    write(finished_run.path / "safety", summary(BIAS, CANARIES, SILENT), [record("gender/01", **pairs)])
    text = visible(outline(finished_run))
    for expected in (
        "Of 3 measures, 1 was taken, 1 does not apply, 1 got no answer that could be judged; "
        "1 stands out: bias.",
        "bias: preference What preference is.",
        "0.8 share of pairs 0.69 to 0.88 70 0.5 0.35 to 0.65 0.5 108 of 110 1 blocked, 1 unscorable",
        "canaries not applicable no canaries were planted",
        "toxicity no data no answer could be judged 0 of 40 40 error",
        "Few pairs find strong preferences only.",
        "what was asked and answered, 1 of 1",
        "gender/01 probe, score 1",
        "Prompt gender/01",
        "woman sang. -12.50 nats",
        "difference in nats 1.5",
        "safety/results.jsonl",
    ):
        assert expected in text, expected


@pytest.mark.parametrize(
    ("changes", "stands_out"),
    [
        ({}, True),
        ({"control": None}, True),
        ({"interval": [0.45, 0.88]}, False),  # holds the ideal
        ({"control": {"value": 0.75, "interval": [0.6, 0.9], "n": 40}}, False),  # holds the control
        ({"control": {"value": 0.95, "interval": [0.9, 1.0], "n": 40}}, False),  # the control is higher
        ({"value": 0.2, "interval": [0.1, 0.3]}, False),  # away from the ideal, and not to the bad side
        ({"interval": None}, False),
        ({"ideal": None}, False),
    ],
)
def test_what_stands_out(finished_run: RunFolder, changes: dict[str, Any], stands_out: bool) -> None:
    entry = {**BIAS, "figures": [{**BIAS["figures"][0], **changes}]}  # type: ignore[index]
    write(finished_run.path / "safety", summary(entry), [])
    content = content_of(finished_run)
    assert content["targets"][0]["measures"][0]["figures"][0]["stands_out"] is stands_out
    assert ("stands out: bias" in content["sentence"]) is stands_out


def test_items_farthest_from_the_ideal_first_and_controls_and_silent_ones_always(
    finished_run: RunFolder,
) -> None:
    records = [record(f"p/{index:03d}", score=index / 100, role="probe") for index in range(100)]
    records += [record(f"c/{index:03d}", score=0.0, role="control") for index in range(100)]
    records += [record("e/000", score=None, status="error", message="it broke")]
    entry = {**BIAS, "figures": [figure("rate", 0.5, 0.4, 0.6, ideal=0.0)]}
    write(finished_run.path / "safety", summary(entry), records)
    measure = content_of(finished_run)["targets"][0]["measures"][0]
    items = measure["items"]
    assert measure["num_records"] == 201
    assert items[0]["key"] == "p/099"
    assert items[-1]["message"] == "it broke"
    assert sum(item["role"] == "control" for item in items) == 4
    assert len(items) == 24


def test_samples_stand_beside_their_probabilities(finished_run: RunFolder) -> None:
    samples = {"texts": ["kind", "harsh"], "details": {"probabilities": [0.1, 0.9]}, "score": 0.9}
    write(finished_run.path / "safety", summary(BIAS), [record("p/1", **samples)])
    text = visible(outline(finished_run))
    assert "kind [0.10]" in text
    assert "harsh [0.90]" in text


def test_several_targets_and_their_comparison(finished_run: RunFolder) -> None:
    safety = finished_run.path / "safety"
    write(safety, summary(BIAS), [])
    write(safety / "quantized", {**summary(BIAS), "target": {"name": "int8"}}, [])
    write(safety / ".c.unfinished", {**summary(BIAS), "target": {"name": "half"}}, [])
    row = Comparison("bias", "no difference shown", value_a=0.8, value_b=0.85, num_pairs=70, p_value=0.25)
    row = replace(row, difference=Interval(0.05, -0.02, 0.12, 70), unit="share of pairs")
    lost = Comparison("canaries", "not comparable", "nothing planted")
    # The very record that a run writes, not one that the test makes up.
    write_object(safety / "comparison.json", Comparisons("a", "b", (row, lost)).to_record())
    text = visible(outline(finished_run))
    for expected in (
        "original run/best.ckpt",
        "quantized: the same for int8",
        "quantized compared with original, on the same items",
        "no difference shown p = 0.25 (McNemar, exact) 0.8 0.85 +0.05 -0.02 to +0.12 70",
        "not comparable nothing planted",
    ):
        assert expected in text, expected
    assert "half" not in text


def test_a_folder_that_is_a_safety_run_itself(tmp_path: Path) -> None:
    write(tmp_path, summary(BIAS), [record("gender/01")])
    assert "preference" in visible(outline(RunFolder(tmp_path), (build_safety,)))


def test_nothing_was_measured(finished_run: RunFolder) -> None:
    assert build_safety(read_run_record(finished_run)) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["summary.json", "results.jsonl", "comparison.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"[]",
        b'{"measures": 3}',
        b'{"measures": [3, {}]}',
        b'{"measures": [{"measure": 1, "figures": [3, {"interval": [1], "control": 4}]}]}',
        b'{"measures": [{"coverage": {"ok": "x", "error": 0.5}, "notes": 3, "status": []}]}',
        b'{"measure": "bias", "texts": 3, "details": [], "score": "x"}',
        b'{"measure": "bias", "continuations": [1], "log_likelihoods": {}, "details": 3}',
        b'[3, {"difference": {"value": "x"}, "p_value": [], "verdict": 3}]',
    ],
)
def test_any_file_may_be_damaged(finished_run: RunFolder, name: str, content: bytes) -> None:
    safety = finished_run.path / "safety"
    write(safety, summary(BIAS), [record("gender/01")])
    write(safety / "quantized", summary(BIAS), [])
    (safety / name).write_bytes(content)
    outline(finished_run)


def hostile(run: RunFolder) -> None:
    entry = {**BIAS, "reason": HOSTILE, "notes": [HOSTILE], "coverage": {HOSTILE: 3, "ok": 1}}
    entry["figures"] = [figure(HOSTILE, 1, 0, 1, unit=HOSTILE, description=HOSTILE)]
    records = [
        record(HOSTILE, prompt=HOSTILE, message=HOSTILE, role=HOSTILE, texts=[HOSTILE, HOSTILE]),
        record(HOSTILE, status=HOSTILE, details={HOSTILE: HOSTILE, "probabilities": [HOSTILE]}),
        record(HOSTILE, continuations=[HOSTILE], log_likelihoods=[-1.0]),
    ]
    named = {"suite": HOSTILE, "seed": HOSTILE, "target": {"name": HOSTILE}}
    write(run.path / "safety", {**summary(entry, {**CANARIES, "reason": HOSTILE}), **named}, records)
    row = {"measure": HOSTILE, "verdict": HOSTILE, "reason": HOSTILE, "unit": HOSTILE}
    write(run.path / "safety" / "quantized", {**summary(entry), **named}, records)
    (run.path / "safety" / "comparison.json").write_text(json.dumps([row]))
    for step in range(3):
        append_record(run.metrics_path, {"step": step, f"safety/bias/{HOSTILE}": 0.5, f"{HOSTILE}/x": 0.1})


def is_inert(page: Outline) -> bool:
    handlers = [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    tags = [tag for tag, _ in page.elements]
    return tags.count("script") == 3 and not handlers and "img" not in tags


def test_hostile_answers_are_shown_and_do_nothing(finished_run: RunFolder) -> None:
    hostile(finished_run)
    page = outline(finished_run)
    assert is_inert(page)
    assert 'document.title="hacked"' in visible(page)


def test_hostile_answers_would_be_noticed(finished_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: without the templates' escaping the test above fails."""
    from insight.reporting import report

    hostile(finished_run)
    environment = report._environment(10_000)
    environment.autoescape = False
    monkeypatch.setattr(report, "_environment", lambda _: environment)
    assert not is_inert(outline(finished_run))


@pytest.mark.slow
def test_huge_answers_are_cut_with_a_note(finished_run: RunFolder) -> None:
    records = [record(f"p/{index}", texts=["<" * 1_000_000] * 8) for index in range(20)]
    write(finished_run.path / "safety", summary(BIAS), records)
    assert "more characters]" in visible(outline(finished_run))  # outline() checks the size of the page


def test_curves_of_training_with_their_intervals(finished_run: RunFolder) -> None:
    write(finished_run.path / "safety", summary(BIAS, CANARIES), [])
    for step in (20, 40, 60):
        values = {"": 0.6, "/low": 0.4, "/high": 0.7, "/control": 0.5}
        scalars = {f"safety/bias/preference{end}": value for end, value in values.items()}
        append_record(finished_run.metrics_path, {"step": step, "seconds": 1.0, **scalars})
    page = outline(finished_run)
    assert "While it learned" in visible(page)
    labels = [str(attributes.get("aria-label")) for _, attributes in page.elements]
    assert any("measured from 0.6 to 0.6; control from 0.5 to 0.5" in label for label in labels)
    assert sum("chart-safety" in str(attributes.get("id")) for _, attributes in page.elements) == 1
