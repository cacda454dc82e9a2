"""The dispatcher: help without torch, nearest matches, exit codes, one-line errors."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from command_line import Outcome, run_insight

from insight.cli import main as main_module
from insight.cli.commands import COMMANDS

TORCH_FREE = (
    "",
    "tokenizer",
    "tokenizer train",
    "tokenizer encode",
    "tokenizer inspect",
    "generate",
    "demo",
    "benchmark",
    "model",
    "model list",
    "model estimate",
)


def test_help_imports_no_torch() -> None:
    script = (
        "import sys\nfrom insight.cli.main import main\n"
        f"for command in {TORCH_FREE!r}:\n"
        "    code = main(command.split() + ['--help'])\n"
        "    heavy = {'torch', 'lightning', 'jsonargparse', 'bokeh', 'pyarrow'} & set(sys.modules)\n"
        "    assert not code, command\n"
        "    assert not heavy, f'{command} imported {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: insight") == len(TORCH_FREE)


def test_tokenizer_works_without_torch(workplace: object) -> None:
    script = (
        "import sys\nfrom insight.cli.main import main\n"
        "code = main('tokenizer train train.txt --vocabulary_size 280 --output t.json'.split())\n"
        "code = code or main(['tokenizer', 'encode', '--tokenizer', 't.json', 'a truth'])\n"
        "sys.exit(code or ('imported torch' if 'torch' in sys.modules else 0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_help_takes_less_than_a_third_of_importing_torch() -> None:
    def seconds(*command: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.perf_counter() - start

    # The best of a few: a busy machine slows single runs of both by a lot.
    help_seconds = min(seconds("-m", "insight", "--help") for _ in range(3))
    torch_seconds = min(seconds("-c", "import torch") for _ in range(2))
    assert help_seconds < torch_seconds / 3


def test_help_lists_exactly_the_commands() -> None:
    outcome = run_insight("--help")
    assert outcome.code == 0
    listed = [
        line.split()[0] for line in outcome.out.splitlines() if line.startswith("  ") and "--" not in line
    ]
    assert listed == list(COMMANDS)


def test_version() -> None:
    assert run_insight("--version").out.startswith("insight 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fitt"], "unknown command 'fitt': did you mean 'fit'?"),
        (["--hlep"], "unknown option '--hlep'"),
        (["compare", "a", "b"], "unknown command 'compare': did you mean 'benchmark'"),
        (["report", "a"], "unknown command 'report': the report of a run is report.html"),
        (["convert", "a"], "unknown command 'convert': did you mean 'import' or 'export'?"),
        (["tokenizer", "inspct"], "unknown ACTION 'inspct': did you mean 'inspect'?"),
        (["tokenizer", "inspect", "--tokeniser", "x"], "--tokenizer"),
        (["generate", "--checkpoint", "x", "--tempreature", "1"], "did you mean '--temperature'?"),
        (["generate", "--checkpoint", "x", "--top_k", "many"], "--top_k: 'many' is not a whole number"),
        (
            ["generate", "--checkpoint", "x", "--overflow", "slid"],
            "unknown --overflow 'slid': did you mean 'slide'?",
        ),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], said: str) -> None:
    outcome = run_insight(*arguments)
    assert outcome.code == 2
    assert said in outcome.error_line


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Callable[..., Outcome]:
    def dispatch(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(main_module, "_dispatch", dispatch)
    return run_insight


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("odd\nstate"), 1, "RuntimeError: odd state: this is a bug"),
        (PermissionError(13, "denied", "/a/b"), 2, "/a/b"),
        (OSError(28, "No space left on device", "/a/b"), 2, "/a/b: the disk is full"),
        (MemoryError(), 1, "out of memory: lower data.batch_size"),
    ],
)
def test_unforeseen_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    outcome = _failing(monkeypatch, error)("fit")
    assert outcome.code == code
    assert said in outcome.error_line


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = _failing(monkeypatch, RuntimeError("odd"))("fit", "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.err


def test_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _failing(monkeypatch, KeyboardInterrupt())("fit").code == 130


def test_control_characters_never_reach_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = _failing(monkeypatch, ValueError("\x1b[31mred\u202e"))("fit")
    assert "\x1b" not in outcome.err
    assert "\u202e" not in outcome.err


def test_everything_behind_two_dashes_is_text() -> None:
    assert "'--debug'" not in run_insight("--debug", "fitt").err
    outcome = run_insight("tokenizer", "encode", "--tokenizer", "missing.json", "--", "--debug")
    assert "missing.json" in outcome.error_line
