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
# One interpreter imports everything once for several commands, and says where the text of each ends.
END = "-- end of a command --"
SEVERAL = f"""\
import json, sys
from insight.cli.main import main

for command in json.loads(sys.argv[1]):
    if main(command) != 0:
        sys.exit(command[0])
    print("{END}", end="", flush=True)
"""


def run(folder: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run_python(folder, variables, "-m", "insight", *arguments)


def run_python(
    folder: Path, variables: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    path = os.pathsep.join([os.environ["PYTHONPATH"], *sys.path])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": path} | variables,
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


@pytest.mark.slow
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
    run_of = ("--checkpoint", "runs/tiny/1")
    commands = [
        ("fit", "--config", "tiny.yaml"),
        ("generate", "\u2603", *run_of, "--temperature", "3"),
        ("validate", *run_of, "--json"),
        ("test", *run_of, "--json"),
    ]
    done = run_python(workplace, variables, "-c", SEVERAL, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    report, text, validated, tested, rest = done.stdout.split(END.encode())
    assert report
    assert text
    assert not rest
    assert json.loads(validated)
    assert json.loads(tested)
