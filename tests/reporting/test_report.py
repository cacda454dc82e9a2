"""The page tells the run, survives whatever is missing or hostile, and stays small."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import insight
from insight.reporting import (
    Metric,
    Sample,
    append_sample,
    report,
    update_run_info,
    update_summary,
    write_report,
)
from insight.reporting.charts import Chart
from insight.reporting.run_files import RunRecord, read_run_record
from insight.reporting.sections import SECTIONS
from insight.reporting.sections.setup import Section, build_network, build_reproduction
from insight.runtime.errors import OutputError
from insight.runtime.json_files import append_record
from insight.runtime.run_folder import RunFolder

HOSTILE = (
    '</script></style></pre><script>document.title="hacked"</script>'
    '<img src=x onerror="document.title=1">\x1b[2J\u202e\ud800'
)


class Outline(HTMLParser):
    """Elements, attributes and visible text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._inside):
            self.text.append(data)


def outline(run: RunFolder, sections: tuple[object, ...] = SECTIONS) -> Outline:
    path = write_report(run, sections)  # type: ignore[arg-type]
    assert path == run.report_path
    assert path.stat().st_size < 3_000_000
    page = Outline()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def visible(page: Outline) -> str:
    return " ".join(" ".join(page.text).split())


def test_the_page_tells_the_run(finished_run: RunFolder) -> None:
    page = outline(finished_run)
    text = visible(page)
    for expected in (
        "demo/1",
        "A network of 4.26 million parameters, trained for 99 steps in 50 s on 3 kB of text.",
        "1.562",
        "95% interval 1.551 to 1.574",
        "n = 440,512",
        "the time budget was used up",
        "25 November 2026, 04:31 UTC",
        "a universally acknowledged fact.",
        "How it learned: 2 earlier samples",
        "1.705 bits per byte",
        "a.txt",
        "GroupedQueryAttention",
        "100 GFLOP/s (measured)",
        "insight fit --config 'my config.yaml'",
        "num_layers: 4",
        "resumed at step 40",
        "2.13.0",
    ):
        assert expected in text, expected
    identifiers = {attributes.get("id") for _, attributes in page.elements}
    assert {
        "chart-loss",
        "chart-bits",
        "chart-rate",
        "chart-throughput",
        "chart-memory",
        "chart-gradient",
    } <= identifiers
    labels = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("role") == "img"]
    assert any("training, smoothed from 7 to 3.0" in str(label) for label in labels)


def test_no_run_at_all(tmp_path: Path) -> None:
    page = outline(RunFolder(tmp_path))
    assert "not trained yet" in visible(page)
    assert "script" not in {tag for tag, _ in page.elements}  # no charts, no Bokeh


@pytest.mark.parametrize(
    "missing", ["metrics.jsonl", "samples.jsonl", "summary.json", "run.json", "config.yaml"]
)
def test_any_file_may_be_missing(finished_run: RunFolder, missing: str) -> None:
    (finished_run.path / missing).unlink()
    outline(finished_run)


@pytest.mark.parametrize(
    "damaged", ["metrics.jsonl", "samples.jsonl", "summary.json", "run.json", "config.yaml"]
)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'{"metrics": 3, "step": "x"}'])
def test_any_file_may_be_damaged(finished_run: RunFolder, damaged: str, content: bytes) -> None:
    (finished_run.path / damaged).write_bytes(content)
    outline(finished_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [None, [], 3, "text", {"a": None}, {"class_path": 3, "init_args": []}, {"splits": {"train": 3}}, [{}]],
)
def test_facts_of_an_unexpected_kind(finished_run: RunFolder, wrong: object) -> None:
    names = (
        "command",
        "started",
        "stop_reason",
        "hardware",
        "data",
        "parameters",
        "network",
        "notes",
        "precision",
    )
    info = json.loads(finished_run.info_path.read_text())
    for name in names:
        finished_run.info_path.write_text(json.dumps({**info, name: wrong}))
        record = read_run_record(finished_run)
        assert [build(record) for build in SECTIONS]
    finished_run.info_path.write_text(json.dumps({**info, **dict.fromkeys(names, wrong)}))
    outline(finished_run)


def test_diverged_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in range(80):
        loss = 3.0 if step < 40 else float("nan")
        append_record(run.metrics_path, {"step": step, "train/loss": loss, "validation/bits_per_byte": loss})
    text = visible(outline(run))
    assert "values not drawn: not a finite number" in text
    assert "not a number" in text


def test_one_point_only(tmp_path: Path) -> None:
    append_record(tmp_path / "metrics.jsonl", {"step": 0, "seconds": 1.0, "train/loss": 3.0})
    assert "chart-loss" in {attributes.get("id") for _, attributes in outline(RunFolder(tmp_path)).elements}


def hostile_run(run: RunFolder) -> None:
    for step in range(3):
        append_sample(run.samples_path, Sample(step, HOSTILE, HOSTILE))
    append_record(run.metrics_path, {"step": 1, "train/loss": 3.0, HOSTILE: 1.0})
    summary = {HOSTILE: {"value": 1.0, "unit": HOSTILE}, "test/loss": {"value": 2.0, "unit": HOSTILE}}
    run.summary_path.write_text(json.dumps({"metrics": summary}))
    nested = {HOSTILE: HOSTILE, "class_path": HOSTILE, "init_args": {HOSTILE: [HOSTILE]}}
    update_run_info(
        run.info_path,
        notes=(HOSTILE,),
        command=["insight", HOSTILE],
        started=HOSTILE,
        stop_reason=HOSTILE,
        x_version=HOSTILE,
        hardware={HOSTILE: HOSTILE, "matmul_flops": {HOSTILE: 1e9}},
        network=nested,
        data={"splits": {HOSTILE: {"files": [HOSTILE], "division": HOSTILE}}, HOSTILE: HOSTILE},
        precision=HOSTILE,
        other=nested,
    )
    run.config_path.write_text(HOSTILE, encoding="utf-8", errors="surrogatepass")


def is_inert(page: Outline) -> bool:
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    handlers = [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    tags = {tag for tag, _ in page.elements}
    return len(scripts) == 3 and not handlers and not {"img", "iframe", "object"} & tags


def test_hostile_text_is_shown_and_does_nothing(finished_run: RunFolder) -> None:
    hostile_run(finished_run)
    page = outline(finished_run)
    assert is_inert(page)
    assert 'document.title="hacked"' in visible(page)
    raw = finished_run.report_path.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\ud800]", raw.replace("\r", ""))


def test_hostile_text_would_be_noticed(finished_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: without the templates' escaping the test above fails."""
    from insight.reporting import report

    hostile_run(finished_run)
    environment = report._environment(10_000)
    environment.autoescape = False
    monkeypatch.setattr(report, "_environment", lambda _: environment)
    assert not is_inert(outline(finished_run))


@pytest.mark.slow
def test_huge_text_is_cut_with_a_note(finished_run: RunFolder) -> None:
    huge = "<" * 1_000_000
    for step in range(200, 260):
        append_sample(finished_run.samples_path, Sample(step, huge, huge))
    update_run_info(
        finished_run.info_path,
        command=[huge],
        notes=(huge,) * 20,
        stop_reason=huge,
        network={huge: huge},
        other=huge,
    )
    finished_run.config_path.write_text(huge)
    text = visible(outline(finished_run))
    assert "more characters]" in text
    assert "more in samples.jsonl" in text


@pytest.mark.slow
def test_long_run_stays_small(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    names = ("train/loss", "train/gradient_norm", "throughput/tokens_per_second", "memory/resident_bytes")
    lines = (
        json.dumps({"step": step, "seconds": step / 7, **dict.fromkeys(names, step**0.5)})
        for step in range(50_000)
    )
    run.metrics_path.write_text("\n".join(lines))
    outline(run)


def test_policy_forbids_everything_but_the_two_scripts(finished_run: RunFolder) -> None:
    page = outline(finished_run)
    (policy,) = [attributes["content"] for tag, attributes in page.elements if attributes.get("http-equiv")]
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/=]{44}'", rules["script-src"])) == 2
    assert "unsafe" not in rules["script-src"]
    assert "connect-src" not in rules
    links = [attributes.get("src") or attributes.get("href") for _, attributes in page.elements]
    assert all(link is None or link.startswith(("#", "data:")) for link in links)


def test_other_sections_can_be_added(finished_run: RunFolder) -> None:
    def build_extra(run: RunRecord) -> Section:
        return Section("extra", "Compression", "facts.html.j2", {"facts": []})

    assert "Compression" in visible(outline(finished_run, (*SECTIONS, build_extra)))


def test_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(RunFolder(tmp_path / "file"))


def test_the_network_shows_values_and_no_empty_ones(finished_run: RunFolder) -> None:
    """What was left open in the configuration is shown as what it came to, or not at all."""
    attention = {"num_heads": 4, "head_dim": None, "window": None}
    network = {"hidden_size": 96, "attention": {"class_path": "a.Attention", "init_args": attention}}
    network |= {"logit_soft_cap": None, "feed_forward": {"class_path": "a.F", "init_args": {"width": None}}}
    config = {"class_path": "insight.models.DecoderConfig", "init_args": network}
    sizes = {"head_dim": 24, "vocabulary_size": 2048}
    update_run_info(finished_run.info_path, network=config, network_sizes=sizes)
    text = visible(outline(finished_run, (build_network,)))
    assert "head dim 24" in text
    assert "vocabulary size 2,048" in text
    assert "none" not in text
    assert "window" not in text


@pytest.mark.slow
def test_a_number_is_not_shown_again_under_another_name(finished_run: RunFolder) -> None:
    update_summary(
        finished_run.summary_path,
        {
            "validation/bits_per_byte": Metric(1.505, unit="bits per byte"),
            "best/validation/bits_per_byte": Metric(1.505, unit="bits per byte"),
            "seen/share": Metric(0.25),
        },
    )
    text = visible(outline(finished_run))
    assert "seen share 0.25" in text
    assert "best validation" not in text
    update_summary(finished_run.summary_path, {"best/validation/bits_per_byte": Metric(1.4)})
    assert "best validation bits per byte" in visible(outline(finished_run))


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["/usr/lib/python3/site-packages/insight/__main__.py", "fit"], "insight fit"),
        (["/home/a/.venv/bin/insight", "demo"], "insight demo"),
        (["C:/Scripts/insight.exe", "fit"], "insight fit"),
        (["insight", "fit", "--config", "{configs}/quickstart.yaml"], "insight fit --config quickstart"),
        (["insight", "fit", "--config={configs}/quickstart.yaml"], "insight fit --config=quickstart"),
        (["insight", "fit", "--config", "{here}/own.yaml"], "insight fit --config own.yaml"),
        (["insight", "fit", "--data.train_files", "{home}/text"], "insight fit --data.train_files '~/text'"),
        (["insight", "fit", "--config", "/elsewhere/configs/quickstart2.yaml"], "/elsewhere/configs/quick"),
        (["insight", "fit", "--run.name", "a b"], "insight fit --run.name 'a b'"),
    ],
)
def test_the_command_holds_no_place_of_this_machine(
    finished_run: RunFolder, typed: list[str], shown: str
) -> None:
    places = {
        "configs": Path(insight.__file__).parents[1] / "configs",
        "here": Path.cwd(),
        "home": Path.home(),
    }
    update_run_info(finished_run.info_path, command=[word.format(**places) for word in typed])
    text = visible(outline(finished_run, (build_reproduction,)))
    assert shown in text
    assert "__main__" not in text


def test_a_chart_is_drawn_again_where_its_values_are_others(
    finished_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw = [], Chart.to_item

    def to_item(chart: Chart) -> dict[str, Any]:
        drawn.append(chart.identifier)
        return draw(chart)

    def page() -> str:  # without the numbers that Bokeh gives to what it draws
        return re.sub(r'"p\d+"', "", write_report(finished_run).read_text(encoding="utf-8"))

    monkeypatch.setattr(Chart, "to_item", to_item)
    report._item.cache_clear()
    first, all_charts = page(), len(drawn)
    assert page() == first
    assert len(drawn) == all_charts > 3
    append_record(
        finished_run.metrics_path, {"step": 100, "seconds": 50.0, "throughput/tokens_per_second": 5.0}
    )
    second = page()
    assert drawn[all_charts:] == ["chart-throughput"]
    report._item.cache_clear()
    assert page() == second != first
