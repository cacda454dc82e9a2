"""Lazy exports import a submodule at first use, and only then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from insight.runtime.imports import lazy_exports\n"
        "if TYPE_CHECKING:\n"
        "    from lazy_example.faulty import broken as broken\n"
        "    from lazy_example.heavy import answer as answer\n"
        "__getattr__, __all__ = lazy_exports(__name__)\n"
    )
    (folder / "heavy.py").write_text("answer = 42\n")
    (folder / "faulty.py").write_text("raise RuntimeError('cannot be imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "lazy_example"
    for name in [name for name in sys.modules if name.startswith("lazy_example")]:
        del sys.modules[name]


def test_submodule_is_imported_at_first_use(package: str) -> None:
    module = __import__(package)
    assert "lazy_example.heavy" not in sys.modules
    assert module.answer == 42
    assert "lazy_example.heavy" in sys.modules
    assert module.__dict__["answer"] == 42  # the second use is an ordinary attribute
    assert module.__all__ == ["answer", "broken"]


def test_from_import_works(package: str) -> None:
    namespace: dict[str, object] = {}
    exec("from lazy_example import answer", namespace)
    assert namespace["answer"] == 42


def test_unknown_name(package: str) -> None:
    with pytest.raises(AttributeError, match="module 'lazy_example' has no attribute 'question'"):
        __import__(package).question  # noqa: B018


def test_error_inside_a_submodule_is_not_hidden(package: str) -> None:
    with pytest.raises(RuntimeError, match="cannot be imported"):
        __import__(package).broken  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    [
        "import insight.runtime.component, insight.runtime.errors, insight.runtime.files",
        "import insight.runtime.run_folder, insight.runtime.messages, insight.runtime.resources",
        "import insight.runtime.seeding, insight.runtime.hardware, insight.runtime.hardware",
        "from insight.reporting import read_metrics, read_samples, read_summary, update_run_info",
        "from insight.reporting import write_report",
    ],
)
def test_runtime_and_reading_do_not_import_torch(statement: str) -> None:
    code = f"{statement}\nimport sys\nassert not {{'torch', 'lightning'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
