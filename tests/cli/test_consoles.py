"""Consoles and locales that are not UTF-8: what they cannot show is replaced, and nothing fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
LATIN = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(folder: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, "-m", "insight", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        capture_output=True,
        check=False,
        timeout=240,
    )


@pytest.mark.parametrize("variables", [ASCII, LATIN, POSIX])
@pytest.mark.parametrize(
    "command", [["--help"], ["fit", "--help"], ["cache", "list"], ["redteam", "run", "--help"]]
)
def test_text_of_ours(tmp_path: Path, variables: dict[str, str], command: list[str]) -> None:
    done = run(tmp_path, variables, *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("variables", [ASCII, LATIN, POSIX])
def test_a_file_and_an_error_with_other_letters(workplace: Path, variables: dict[str, str]) -> None:
    name = "caf\u00e9 \u2603.yaml"
    (workplace / name).write_text("run: {name: \u2603}\ntrainer: {max_setps: 3}\n", encoding="utf-8")
    done = run(workplace, variables, "fit", "--config", name)
    assert done.returncode == 2, done.stderr
    assert b"'trainer.max_steps'" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variables", [ASCII, LATIN, POSIX])
def test_a_run_and_its_text(workplace: Path, variables: dict[str, str]) -> None:
    """An untrained network of bytes writes what no encoding can show."""
    tiny = (workplace / "tiny.yaml").read_text(encoding="utf-8")
    text = "# \u2603\n" + tiny.replace("[It is]", '["\u2603 It"]')
    (workplace / "tiny.yaml").write_text(text, encoding="utf-8")
    done = run(workplace, variables, "fit", "--config", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    done = run(
        workplace, variables, "generate", "\u2603", "--checkpoint", "runs/tiny/1", "--temperature", "3"
    )
    assert done.returncode == 0, done.stderr
    for command in ("validate", "test"):
        done = run(workplace, variables, command, "--checkpoint", "runs/tiny/1", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
