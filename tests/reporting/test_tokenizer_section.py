"""The pages of tokenizers: a chart of lengths, what pruning kept, and any file survived."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from insight.reporting.charts import Bar, BarChart
from insight.reporting.run_files import read_run_record
from insight.reporting.sections.section import Section
from insight.reporting.sections.tokenizer import build_pruning, build_tokenizer_quality
from insight.runtime.json_files import write_object
from insight.runtime.run_folder import RunFolder


def tokenizer(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "vocabulary_size": 300, "bytes_per_token": 3.2, **more}


def quality(folder: Path, *tokenizers: dict[str, Any]) -> Section:
    write_object(folder / "summary.json", {"tokenizers": list(tokenizers)})
    section = build_tokenizer_quality(read_run_record(RunFolder(folder)))
    assert section is not None
    return section


def test_a_bar_for_every_file_and_tokenizer(tmp_path: Path) -> None:
    files = [{"name": f"text-{index}.txt", "bytes_per_token": 3.0 + index} for index in range(3)]
    section = quality(tmp_path, tokenizer("a", files=files), tokenizer("b", files=files[:2]))
    (chart,) = section.charts
    assert isinstance(chart, BarChart)
    assert [(bar.label, bar.series, bar.value) for bar in chart.bars] == [
        ("text-0.txt", 0, 3.0),
        ("text-1.txt", 0, 4.0),
        ("text-2.txt", 0, 5.0),
        ("text-0.txt", 1, 3.0),
        ("text-1.txt", 1, 4.0),
    ]
    assert [line.label for line in chart.lines] == ["a", "b"]
    assert {"--line-1", "--line-2"} <= set(json.dumps(chart.to_item(), allow_nan=False).split('"'))


def test_one_text_has_a_bar_too(tmp_path: Path) -> None:
    (chart,) = quality(tmp_path, tokenizer("a")).charts
    assert "all text, a: 3.2" in chart.description
    assert quality(tmp_path, tokenizer("a", bytes_per_token=None)).charts == ()


def test_long_names_keep_their_end(tmp_path: Path) -> None:
    section = quality(tmp_path, tokenizer("/srv/" + "x" * 200 + "/second/tokenizer.json"))
    name = section.content["tables"][0]["head"][1]
    assert len(name) == 40
    assert name.startswith("…")
    assert name.endswith("/second/tokenizer.json")


@pytest.mark.parametrize("values", [(), (1.0,), (float("nan"), 2.0), (0.0, 0.0)])
def test_odd_bars_become_json(values: tuple[float, ...]) -> None:
    chart = BarChart("c", "t", "u", ("s",), tuple(Bar(f"b{i}", 0, value) for i, value in enumerate(values)))
    json.dumps(chart.to_item(), allow_nan=False)
    assert chart.num_lost == sum(value != value for value in values)


def test_a_sentence_says_what_pruning_kept(tmp_path: Path) -> None:
    sizes = [
        {"vocabulary_size": 1683, "tokens_per_byte": 0.32, "loss": 0.0199, "is_chosen": True},
        {"vocabulary_size": 2048, "tokens_per_byte": 0.31, "loss": 0.0},
    ]
    write_object(tmp_path / "summary.json", {"sizes": sizes})
    section = build_pruning(read_run_record(RunFolder(tmp_path)))
    assert section is not None
    assert (
        section.content["sentence"] == "Of 2,048 tokens 1,683 were kept; the text takes 1.99% more of them."
    )
