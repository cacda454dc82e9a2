"""The page in a real browser: the charts are drawn, nothing is fetched, hostile text executes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from watched_browser import HOST, NEEDS_BROWSER, open_page

from insight.reporting import Sample, append_sample, update_run_info, write_report
from insight.runtime.run_folder import RunFolder

HOSTILE = (
    f"</script></pre><script>document.title='hacked'; fetch('http://{HOST}/fetch')</script>"
    f"<img src='http://{HOST}/image' onerror=\"document.title='hacked'\">"
    f"<link rel=stylesheet href='http://{HOST}/style'><iframe src='http://{HOST}/frame'></iframe>"
)

pytestmark = NEEDS_BROWSER


def make_hostile(run: RunFolder) -> None:
    append_sample(run.samples_path, Sample(200, HOSTILE, HOSTILE))
    update_run_info(
        run.info_path, notes=(HOSTILE,), command=[HOSTILE], stop_reason=HOSTILE, other={HOSTILE: HOSTILE}
    )
    run.config_path.write_text(HOSTILE)
    candidate = {"name": HOSTILE, "status": "ok", "bits_per_byte": 2.0, "disk_bytes": 4e6}
    candidate |= {"tokens_per_second": 9.0, "modules_kept": [{"name": HOSTILE, "reason": HOSTILE}]}
    refused = {"name": HOSTILE, "status": HOSTILE, "reason": HOSTILE}
    report = {"chosen": HOSTILE, "reason": HOSTILE, "candidates": [candidate, refused]}
    (run.path / "quantization").mkdir()
    (run.path / "quantization" / "report.json").write_text(json.dumps(report))


def test_charts_are_drawn_and_hostile_text_does_nothing(
    finished_run: RunFolder, proxy: tuple[str, list[str]], tmp_path: Path
) -> None:
    make_hostile(finished_run)
    document = open_page(write_report(finished_run), proxy[0], tmp_path / "profile")
    assert "<title>demo/1 · Insight</title>" in document
    assert document.count("bk-Figure") >= 8
    assert "&lt;img src=" in document
    assert proxy[1] == []


def test_an_unprotected_page_is_noticed(proxy: tuple[str, list[str]], tmp_path: Path) -> None:
    """The twin: the same text unescaped and without the policy executes and fetches."""
    page = tmp_path / "page.html"
    page.write_text(f"<title>x</title>{HOSTILE}")
    document = open_page(page, proxy[0], tmp_path / "profile")
    assert "<title>hacked</title>" in document
    assert any(HOST in request for request in proxy[1])


def test_the_policy_alone_stops_it(
    finished_run: RunFolder, proxy: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the escaping failed: nothing executes and nothing is fetched."""
    from insight.reporting import report

    make_hostile(finished_run)
    environment = report._environment(10_000)
    environment.autoescape = False
    monkeypatch.setattr(report, "_environment", lambda _: environment)
    document = open_page(write_report(finished_run), proxy[0], tmp_path / "profile")
    assert "<script>document.title='hacked'" in document  # it did get into the page
    assert "<title>hacked</title>" not in document
    assert proxy[1] == []
