"""The notebooks run from top to bottom: their code cells, one after the other, with a short training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import insight

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {
    "quickstart": ("validation/bits_per_byte", "bits per byte", "original", "memorisation   measured"),
    "translation": ("test/chrf", "step", "greedy", "beam 5", "(end)"),
}
"""The notebooks, and what each prints."""


def _cells(name: str) -> list[dict[str, Any]]:
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    cells: list[dict[str, Any]] = json.loads(text)["cells"]
    return cells


def test_every_notebook_is_tested() -> None:
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_holds_no_output(name: str) -> None:
    for cell in _cells(name):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = insight.fit
    short = str(ROOT / "tests" / f"short_{name}.yaml")
    # What the notebook asks for comes behind the shorter configuration, and so holds.
    monkeypatch.setattr(insight, "fit", lambda config, options: fit(config, {"config": short, **options}))
    names: dict[str, Any] = {}
    for cell in _cells(name):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)
    out = capsys.readouterr().out
    for text in NOTEBOOKS[name]:
        assert text in out
    assert names["run"].report_path.is_file()
