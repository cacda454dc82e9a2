"""The README's quickstart block does what it says, word for word, in a copy of the repository.

The block is the first ``bash`` block after ``<!-- quickstart -->``. Lines that fetch or enter the repository
are left out (the copy stands for them), and so is ``make test``, which runs this test. The environment that
make would install is replaced by this one, and INSIGHT_TIME_BUDGET shortens the training.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"<!-- quickstart -->\s*```bash\n(.*?)```", re.DOTALL)
_LEFT_OUT = ("git clone", "cd ", "make test")
_SECONDS = "75"


def quickstart_block(readme: str) -> str:
    """The commands of the block, or a failure that says what is missing."""
    match = _BLOCK.search(readme)
    assert match, "README.md has no <!-- quickstart --> followed by a bash block"
    lines = [line for line in match[1].splitlines() if not line.strip().startswith(_LEFT_OUT)]
    return "\n".join(lines)


@pytest.mark.slow
def test_the_quickstart_of_the_readme_runs(tmp_path: Path) -> None:
    script = quickstart_block((ROOT / "README.md").read_text(encoding="utf-8"))
    copy = tmp_path / "a copy"
    ignored = shutil.ignore_patterns(".git", ".venv*", "runs", "__pycache__", "output", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    programs = copy / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, call in (("python", ""), ("insight", " -m insight")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{call} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    for stamp in (".installed", ".installed-test"):
        (copy / ".venv" / stamp).touch()
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "INSIGHT_TIME_BUDGET": _SECONDS,
        "INSIGHT_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((copy / "runs").glob("*/*/report.html"))
