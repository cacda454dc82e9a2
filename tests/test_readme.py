"""The commands under "Start" in the README do what it says, word for word, in a copy of the repository.

Left out are the lines that fetch or enter the repository (the copy stands for them), ``make test``, which
runs this test, and TensorBoard, which would stay. The environment that make would install is replaced by this
one, whose programs give every training ``short_quickstart.yaml`` besides.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from insight.data import read_corpus

ROOT = Path(__file__).parents[1]
_START = re.compile(r"^## Start$(.*?)^## ", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
_LEFT_OUT = ("git clone", "cd ", "make test", "tensorboard ")
_PYTHON = """\
#!/bin/sh
case "$*" in
  "-m insight demo"* | "-m insight fit"*) set -- "$@" --config tests/short_quickstart.yaml ;;
esac
exec "{python}" "$@"
"""
_INSIGHT = '#!/bin/sh\nexec python -m insight "$@"\n'


def start_commands(readme: str) -> list[str]:
    """The commands of all blocks under "Start"; a failure if one of those that matter is missing."""
    start = _START.search(readme)
    assert start, "README.md has no section Start"
    lines = [line.strip() for block in _BLOCK.findall(start[1]) for line in block.splitlines()]
    commands = [line for line in lines if line and not line.startswith(_LEFT_OUT)]
    for begins in ("make demo", "insight generate ", "insight test ", "insight fit "):
        assert any(command.startswith(begins) for command in commands), (
            f"README.md: no {begins!r} under Start"
        )
    return commands


def environment_in(copy: Path, cache: Path) -> dict[str, str]:
    """Programs where make would install them, and the variables of a shell that has not seen them yet."""
    programs = copy / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, script in (("python", _PYTHON.format(python=sys.executable)), ("insight", _INSIGHT)):
        (programs / name).write_text(script, encoding="utf-8")
        (programs / name).chmod(0o755)
    (programs / "activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n', encoding="utf-8")
    for stamp in (".installed", ".installed-test"):
        (copy / ".venv" / stamp).touch()
    return {**os.environ, "INSIGHT_CACHE_DIR": str(cache)}


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    commands = start_commands((ROOT / "README.md").read_text(encoding="utf-8"))
    copy = tmp_path / "a copy"
    ignored = shutil.ignore_patterns(".git", ".venv*", "runs", "__pycache__", "output", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    own_text = read_corpus("austen-emma")
    (copy / "my").mkdir()
    for number in range(3):
        part = own_text[number * 100_000 : (number + 1) * 100_000]
        (copy / "my" / f"{number}.txt").write_text(part, encoding="utf-8")
    done = subprocess.run(
        # `timeout` ends what the shell has started, too.
        ["timeout", "600", "bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=copy,
        env=environment_in(copy, tmp_path / "cache"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((copy / "runs").glob("quickstart/*/report.html"))) == 2
    assert (copy / "runs" / "quickstart" / "1" / "quantization" / "report.json").is_file()
    assert (copy / "runs" / "quickstart" / "1" / "safety" / "summary.json").is_file()
    assert "no validation_files: validating on" in done.stderr


def test_a_command_that_is_gone_would_be_noticed() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with pytest.raises(AssertionError, match="no 'insight test '"):
        start_commands(readme.replace("insight test --checkpoint", "insight measure --checkpoint"))
