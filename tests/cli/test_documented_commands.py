"""The commands of docs/training.md and of the comments in configs/ that train with several parts run.


Each is shortened by ``short_quickstart.yaml`` and runs with all default callbacks, at both precisions.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from real_processes import PYTHON_INSIGHT, started

from insight.reporting import read_samples, read_summary

ROOT = Path(__file__).parents[2]
PAGES = ("configs/fsdp2.yaml", "configs/guards.yaml", "docs/training.md")
COMMAND = re.compile(r"^(?:#  )?\s*(insight fit --config (?:configs/)?quickstart[^#\n]*)", re.M)
COMMANDS = sorted(
    {
        " ".join(command.split())
        for page in PAGES
        for command in COMMAND.findall((ROOT / page).read_text(encoding="utf-8"))
    }
)


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) == 3
    assert any("fsdp2" in command for command in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_runs(
    command: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "32-true" and "fsdp2" not in command:
        pytest.skip("the first precision is enough where no process casts weights")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "short.yaml").symlink_to(ROOT / "tests/short_quickstart.yaml")
    arguments = [*shlex.split(command)[1:], "--config", "short.yaml", "--trainer.precision", precision]
    arguments += ["--trainer.accelerator", "cpu"]
    with started([*PYTHON_INSIGHT, *arguments], tmp_path, "command") as running:
        outcome = running.wait(400)
    assert outcome.code == 0, outcome.err
    (run,) = (tmp_path / "runs").glob("*/1")
    assert read_samples(run)
    assert "validation/bits_per_byte" in read_summary(run)
    assert (run / "report.html").is_file()
