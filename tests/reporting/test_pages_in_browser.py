"""Every page in a real browser, narrow and wide, light and dark: nothing scrolls sideways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_translation_section import write_translations
from watched_browser import NEEDS_BROWSER, Page

from insight.reporting import write_report
from insight.reporting.sections import SECTIONS
from insight.reporting.sections.comparison import build_benchmark, build_benchmark_setup
from insight.reporting.sections.safety import build_safety
from insight.reporting.sections.tokenizer import (
    build_pruning,
    build_tokenizer_quality,
    build_tokenizer_tokens,
)
from insight.reporting.sections.training import build_curves
from insight.runtime.json_files import to_line
from insight.runtime.run_folder import RunFolder

pytestmark = NEEDS_BROWSER
LONG = "/srv/experiments/2026/november/second attempt with a larger vocabulary/runs/demo/12"
OVERFLOWING = (
    "[...document.querySelectorAll('.scroll, pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
)
TICKS = """Bokeh.documents.flatMap(d => d.roots()).flatMap(p => [...p.left, ...p.below]).map(axis => {
  const view = Bokeh.index.find_one(axis);
  return axis.formatter.doFormat(view.tick_coords.major[view.dimension], {loc: 0});
})"""


def tokenizer(name: str) -> dict[str, Any]:
    measured = {"bytes": 4_668_540, "tokens": 1_485_850, "bytes_per_token": 3.142, "tokens_per_word": 1.784}
    measured |= {"coverage": 1.0, "fragment_share": 0.0, "round_trip": {"lost": 0, "checked": 1}}
    tokens = {"count": 301, "share": 0.147, "examples": ["Harriet", " Catherine"]}
    files = [{"name": f"{LONG}/text-{number}.txt", **measured} for number in range(3)]
    return {"name": name, "vocabulary_size": 2048, **measured, "files": files, "unused_tokens": tokens}


def model(name: str, bits: float, weight_bytes: int) -> dict[str, Any]:
    speeds = [
        {"batch_size": size, "tokens_per_second": 1e3 * size, "prefill_seconds_p50": 0.0024}
        | {"prefill_seconds_p95": 0.003, "decode_seconds_p50": 0.0008, "decode_seconds_p95": 0.001}
        for size in (1, 8)
    ]
    sizes = {"weight_bytes": weight_bytes, "disk_bytes": weight_bytes, "resident_bytes": 333_000_000}
    sizes |= {"model_resident_bytes": 91_000_000, "load_seconds": 1.3, "start_seconds": 3.2}
    difference = {"value": 0.02, "low": 0.01, "high": 0.03}
    return {"name": name, "path": name, "bits_per_byte": bits, "quality_difference": difference, **sizes} | {
        "speeds": speeds
    }


SIZES = [
    {"vocabulary_size": size, "bytes_per_token": 3.0, "tokens": 151_000, "loss": 0.02}
    | {"tokens_per_byte": 0.3 + 20 / size, "is_chosen": size == 1683}
    for size in (257, 389, 590, 893, 1352, 1639, 1662, 1673, 1679, 1682, 1683, 1684, 2048)
]
FIGURE = {"name": "reproduced", "value": 0.875, "interval": [0.125, 1.875], "n": 8, "unit": "characters"}
FIGURE |= {"description": "Characters of the text " * 6, "control": None, "ideal": 0.0}
PAGES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "tokenizer": (
        {"tokenizers": [tokenizer(LONG), tokenizer(f"{LONG}/other.json")]},
        (build_tokenizer_quality, build_tokenizer_tokens),
    ),
    "pruning": ({"sizes": SIZES}, (build_pruning,)),
    "benchmark": (
        {"models": [model(LONG, 2.0, 2_385_792), model(f"{LONG}-small", 2.02, 812_736)]},
        (build_benchmark, build_benchmark_setup),
    ),
    "safety": (
        {
            "target": {"name": LONG},
            "measures": [
                {"measure": "memorisation", "status": "measured", "figures": [FIGURE], "coverage": {"ok": 16}}
            ],
        },
        (build_safety,),
    ),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


def scrolls(browser: Page, path: Path) -> list[tuple[int, bool]]:
    """Widths and colours at which something scrolls sideways; tables may where a page is a telephone's."""
    found = []
    for width in (390, 1200, 1600):
        browser.open(path, width)
        for dark in (False, True):
            browser.use_colors(dark)
            is_wider = browser.evaluate("document.documentElement.scrollWidth") > width
            if is_wider or (width >= 1200 and browser.evaluate(OVERFLOWING)):
                found.append((width, dark))
    return found


@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways(browser: Page, tmp_path: Path, name: str) -> None:
    summary, sections = PAGES[name]
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert scrolls(browser, write_report(RunFolder(tmp_path), sections, title=LONG)) == []


def test_the_report_of_a_run_does_not_scroll_sideways(browser: Page, finished_run: RunFolder) -> None:
    assert scrolls(browser, write_report(finished_run, SECTIONS)) == []


def test_translations_do_not_scroll_sideways(browser: Page, finished_run: RunFolder) -> None:
    """The longest sentences that are aligned, and words that break nowhere."""
    write_translations(finished_run, f"Nebuchadnezzar's {LONG.replace(' ', '')} was", num_words=48)
    assert scrolls(browser, write_report(finished_run, SECTIONS)) == []


def test_a_page_that_scrolls_is_noticed(browser: Page, tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text("<div style='width: 1700px'>wide</div>", encoding="utf-8")
    assert len(scrolls(browser, page)) == 6


@pytest.mark.parametrize("values", [(1.7414, 1.7236), (0.00031, 0.00029), (5.0, 71_000.0)])
def test_no_two_ticks_of_an_axis_have_one_label(
    browser: Page, tmp_path: Path, values: tuple[float, float]
) -> None:
    """Values and steps that are close together need more digits than others."""
    rows = [{"step": step, "validation/bits_per_byte": value} for step, value in enumerate(values, 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(map(to_line, rows)), encoding="utf-8")
    browser.open(write_report(RunFolder(tmp_path), (build_curves,)), 1200)
    axes = browser.evaluate(TICKS)
    assert len(axes) == 2
    assert all(len(labels) == len(set(labels)) >= 2 for labels in axes), axes
