"""``RESULTS.md``: one section per benchmark, which is replaced when it is measured again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
_INTRODUCTION = """# Results

Written by the scripts in this folder (`--write-results`); each section names the command, the commit and the
machine. Numbers of two sections compare only if their machines are the same. What was tried on the way is in
[LOG.md](LOG.md), how to run it all in [README.md](README.md).
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def section(title: str, command: str, commits: str, machine: str, date: str, body: str) -> str:
    """A section with command, commit, machine and date."""
    return f"## {title}\n\n`{command}`, commit {commits}, {date}.\n{machine}.\n\n{body.strip()}\n"


def write_section(name: str, text: str, path: Path = RESULTS) -> None:
    """Put ``text`` between the marks of section ``name``, which are appended if missing."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = path.read_text(encoding="utf-8") if path.exists() else _INTRODUCTION
    block = f"{begin}\n{text.strip()}\n{end}"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    found = pattern.search(page)
    page = pattern.sub(lambda _: block, page) if found else f"{page.rstrip()}\n\n{block}\n"
    path.write_text(page, encoding="utf-8")
