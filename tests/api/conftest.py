"""The tiny configuration of the command line's tests, in an empty working folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cli"))


@pytest.fixture
def workplace(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty working folder with ``tiny.yaml`` and its text, and a cache of its own."""
    from command_line import write_tiny

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSIGHT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    write_tiny(tmp_path)
    return tmp_path
