"""The notebook runs from top to bottom: its code cells, one after the other, with a short training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import insight

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"
SHORT = Path(__file__).parent / "short_quickstart.yaml"


def _cells() -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return cells


def test_it_holds_no_output() -> None:
    for cell in _cells():
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    fit = insight.fit
    # What the notebook asks for comes behind the shorter configuration, and so holds.
    monkeypatch.setattr(
        insight, "fit", lambda config, options: fit(config, {"config": str(SHORT), **options})
    )
    names: dict[str, Any] = {}
    for cell in _cells():
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)
    out = capsys.readouterr().out
    assert "validation/bits_per_byte" in out
    assert "bits per byte" in out
    assert "original" in out
    assert "memorisation   measured" in out
    assert names["run"].report_path.is_file()
