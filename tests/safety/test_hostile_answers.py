"""Answers of HTML, scripts, escape sequences, a megabyte and broken Unicode are inert in the report.

In a real browser, behind a proxy of the test that writes every request down.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from watched_browser import HOST, NEEDS_BROWSER, open_page

from insight.generation.settings import GenerationSettings
from insight.reporting import write_report
from insight.runtime.json_files import read_records
from insight.runtime.run_folder import RunFolder
from insight.safety import CallableTarget, red_team
from insight.safety.injection import NonceWritten, OverrideInjection
from insight.safety.suite import Measure, Suite
from insight.safety.toxicity import ToxicContinuation, ToxicityPrompts

SCRIPT = f"<script>document.title='hacked'; fetch('http://{HOST}/fetch')</script>"
ANSWERS = (
    f"</script></blockquote></details></body>{SCRIPT}",
    f"<img src='http://{HOST}/image' onerror=\"document.title='hacked'\">",
    "{{ 7 * 7 }} {% raw %} <!-- ]]> \x1b[2J\x1b]0;hacked\x07\x9b31m \u202eright to left\u202c",
    "half a pair \ud800 and \udfff, no character \ufffe, null \x00",
    f"{SCRIPT} " + "<b>" * 350_000,
)


class HostileModel:
    """Answers its prompts with one hostile text after the other; the same prompt gets the same one."""

    def __init__(self) -> None:
        self.answered: dict[str, str] = {}

    def __call__(self, prompt: str, settings: GenerationSettings) -> str:
        return self.answered.setdefault(prompt, ANSWERS[len(self.answered) % len(ANSWERS)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run folder with the results of a safety run on the hostile model."""
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "hostile")
    suite = Suite(
        (
            Measure("injection", OverrideInjection(num_items=5), NonceWritten()),
            Measure("toxicity", ToxicityPrompts(num_samples=1), ToxicContinuation(), max_items=5),
        )
    )
    target = CallableTarget(f"model {SCRIPT}", generate=HostileModel())
    red_team(target, suite, output=folder.path / "safety")
    write_report(folder)
    return folder


def test_answers_are_kept_as_they_were(run: RunFolder) -> None:
    texts = [
        text for record in read_records(run.path / "safety" / "results.jsonl") for text in record["texts"]
    ]
    assert set(texts) == set(ANSWERS)


def test_the_page_is_small_and_free_of_control_characters(run: RunFolder) -> None:
    page = run.report_path.read_bytes()
    assert len(page) < 3_000_000
    text = page.decode("utf-8")  # strictly: what is no text did not get in
    assert not set("\x00\x1b\x07\x9b\u202e") & set(text)
    assert "&lt;script&gt;document.title=" in text
    assert "more characters]" in text


class TestInABrowser:
    pytestmark = NEEDS_BROWSER

    def test_hostile_answers_do_nothing(
        self, run: RunFolder, proxy: tuple[str, list[str]], tmp_path: Path
    ) -> None:
        document = open_page(run.report_path, proxy[0], tmp_path / "profile")
        assert "<title>hostile/1 · Insight</title>" in document
        assert "what was asked and answered" in document
        assert "&lt;img src=" in document
        assert "{{ 7 * 7 }}" in document
        assert proxy[1] == []

    def test_an_unprotected_page_is_noticed(
        self, run: RunFolder, proxy: tuple[str, list[str]], tmp_path: Path
    ) -> None:
        """The twin: the same answers in a page that escapes nothing execute and fetch."""
        records = read_records(run.path / "safety" / "results.jsonl")
        page = tmp_path / "page.html"
        body = "".join(record["texts"][0] for record in records)
        page.write_text(f"<title>x</title>{body}", encoding="utf-8", errors="replace")
        document = open_page(page, proxy[0], tmp_path / "profile")
        assert "<title>hacked</title>" in document
        assert any(HOST in request for request in proxy[1])

    def test_the_policy_alone_stops_them(
        self, run: RunFolder, proxy: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even if the escaping failed: nothing executes and nothing is fetched."""
        from insight.reporting import report

        copy = RunFolder(tmp_path / "copy")
        shutil.copytree(run.path, copy.path)
        environment = report._environment(10_000)
        environment.autoescape = False
        monkeypatch.setattr(report, "_environment", lambda _: environment)
        document = open_page(write_report(copy), proxy[0], tmp_path / "profile")
        assert "<script>document.title='hacked'" in document  # it did get into the page
        assert "<title>hacked</title>" not in document
        assert proxy[1] == []
