"""A folder with a tiny configuration and its text, a cache of its own, and one finished run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Outcome, run_insight, write_tiny


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tokenizers and token ids of these tests, apart from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSIGHT_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with ``tiny.yaml`` and its text."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    return tmp_path


@pytest.fixture
def insight(workplace: Path) -> Callable[..., Outcome]:
    """Runs the command in ``workplace``."""
    return run_insight


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The folder of one finished tiny run."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_tiny(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        outcome = run_insight("fit", "--config", str(config))
    finally:
        os.chdir(before)
    assert outcome.code == 0, outcome.err
    return folder / "runs" / "tiny" / "1"
