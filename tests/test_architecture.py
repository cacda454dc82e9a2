"""docs/architecture.md names files and functions that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "insight").rglob("*.py"))
WALKS = PAGE[PAGE.index("## Seven walks") :]

_FILES = {"report.json", "windows.py"}  # names with a dot that are no class and its method


def _missing(page: str) -> list[str]:
    files = {name for name in re.findall(r"`([a-z_0-9/]+\.py)`", page) if "/" in name}
    missing = [name for name in files if not (ROOT / "insight" / name).is_file()]
    for name in set(re.findall(r"`(_?[A-Za-z]\w+(?:\.\w+)?)`", page)) - _FILES:
        for part in name.split("."):
            if not re.search(rf"\b(class|def) {part}\b|^\s*{part}\b.*=", SOURCE, re.MULTILINE):
                missing.append(name)
    return missing


@pytest.mark.slow
def test_every_file_and_function_of_the_walks_exists() -> None:
    assert not _missing(WALKS)


def test_a_name_that_is_gone_would_be_noticed() -> None:
    assert _missing("`data/gone.py` `Gone.method` `also_gone`") != []


def test_walks_are_short() -> None:
    walks = re.split(r"^\*\*", WALKS.split("## Where to change")[0], flags=re.MULTILINE)[1:]
    assert len(walks) == 7
    for walk in walks:
        assert len(re.findall(r"^\d+\. ", walk, re.MULTILINE)) <= 12, walk
    first, *_, last = walks
    assert len(set(re.findall(r"`([a-z_0-9/]+\.py)`", first))) <= 15
    assert len(set(re.findall(r"`([a-z_0-9/]+\.py)`", last))) <= 10
