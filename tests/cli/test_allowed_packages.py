"""Parts of the user's own: found in the working folder, named when they fail, and used only where allowed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Outcome, run_insight, write_tiny

POSITION = "--model.network.attention.position"
SOURCE = (
    "from dataclasses import dataclass\nfrom insight.models import NoPosition\n"
    "@dataclass(frozen=True)\nclass Odd(NoPosition):\n    period: int = 3\n"
)
FAILING = (
    "from lightning.pytorch import Callback\nclass Bad(Callback):\n"
    "    def on_train_start(self, trainer, pl_module):\n        raise ValueError('out of order')\n"
)


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Iterator[Path]:
    """The working folder of a run whose network has a part of a package in that folder."""
    folder = tmp_path_factory.mktemp("own_position")
    write_tiny(folder)
    (folder / "own_positions.py").write_text(SOURCE, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        outcome = run_insight("fit", "--config", "tiny.yaml", POSITION, "own_positions.Odd")
        assert outcome.code == 0, outcome.err
        yield folder
    finally:
        os.chdir(before)
        sys.modules.pop("own_positions", None)


COMMANDS = (
    ("generate", "It is", "--max_new_tokens", "2", "--checkpoint"),
    ("validate", "--json", "--checkpoint"),
    ("fit", "--trainer.max_steps", "6", "--resume"),
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_with_an_own_part_needs_the_option_in_every_command(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(own_run)
    refused = run_insight(*command, "runs/tiny/1")
    assert refused.code == 2
    assert "--allow_package own_positions" in refused.error_line
    assert os.environ.get("INSIGHT_ALLOW_PACKAGE") is None
    allowed = run_insight(*command, "runs/tiny/1", "--allow_package", "own_positions")
    assert allowed.code == 0, allowed.err
    assert "own_positions" not in os.environ.get("INSIGHT_ALLOW_PACKAGE", "")


def test_the_folder_of_a_run_cannot_have_code_imported(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's run names a module that lies beside it; without the option it is never imported."""
    monkeypatch.chdir(own_run)
    (own_run / "evil.py").write_text("open('imported', 'w').close()\n", encoding="utf-8")
    config = own_run / "runs" / "tiny" / "1" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    try:
        config.write_text(text.replace("own_positions.Odd", "evil.Odd"), encoding="utf-8")
        outcome = run_insight("validate", "--checkpoint", "runs/tiny/1")
    finally:
        config.write_text(text, encoding="utf-8")
    assert outcome.code == 2
    assert "'evil'" in outcome.error_line
    assert not (own_run / "imported").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("own_positions.Oddd", ["has no class 'Oddd'", "did you mean 'Odd'?"]),
        ("nowhere_at_all.Odd", ["no module 'nowhere_at_all'", "working folder"]),
        ("broken_module.Odd", ["cannot be imported", "RuntimeError: half done", "broken_module.py, line 2"]),
        (
            "needs_more.Odd",
            ["cannot be imported", "named 'not_installed'", "needs_more.py, line 1"],
        ),
        ("wrong_syntax.Odd", ["cannot be imported", "SyntaxError", "wrong_syntax.py, line 1"]),
    ],
)
def test_what_is_wrong_with_a_module_is_told(
    insight: Callable[..., Outcome], workplace: Path, path: str, said: list[str]
) -> None:
    for name, text in {
        "own_positions": SOURCE,
        "broken_module": "x = 1\nraise RuntimeError('half done')\n",
        "needs_more": "import not_installed\n",
        "wrong_syntax": "def f(:\n",
    }.items():
        (workplace / f"{name}.py").write_text(text, encoding="utf-8")
    outcome = insight("fit", "--config", "tiny.yaml", POSITION, path)
    sys.modules.pop("own_positions", None)
    assert outcome.code == 2
    for words in said:
        assert words in outcome.error_line
    assert str(workplace) not in sys.path


def test_an_error_of_the_users_callback_is_told_as_such(
    insight: Callable[..., Outcome], workplace: Path
) -> None:
    (workplace / "own_callback.py").write_text(FAILING, encoding="utf-8")
    outcome = insight("fit", "--config", "tiny.yaml", "--trainer.callbacks=[{class_path: own_callback.Bad}]")
    sys.modules.pop("own_callback", None)
    assert outcome.code == 1
    assert "ValueError: out of order: raised in your own code" in outcome.error_line
    assert "own_callback.py, line 4" in outcome.error_line


def test_the_option_takes_the_name_of_a_package(insight: Callable[..., Outcome]) -> None:
    assert "--allow_package=a/b" in insight("generate", "--allow_package", "a/b").error_line
    assert "not the name of a package" in insight("generate", "--allow_package").error_line
