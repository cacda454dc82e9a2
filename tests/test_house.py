"""The house: arrows between the folders, short files, short package files, names that say something."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "insight").rglob("*.py"))


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    # The tool analyses the package that Python finds first: that of the working folder.
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )


def test_arrows_hold() -> None:
    done = _lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


WRONG_ARROWS = {
    "runtime.files": "import insight.models",
    "models.linear": "from insight.data import read_corpus",
    "training.losses": "from insight.data.store import TokenStore",
    "callbacks.progress_line": "from insight.cli.main import main",
    "data.tokenizers.base": "from insight.data.store import TokenStore",
    "optimization.config": "from insight.reporting import read_summary",
    "safety.records": "from insight.optimization import QuantizationConfig",
    "cli.commands": "from insight.training import losses",
    "checkpoints.format": "from insight.generation import settings",
}


def test_wrong_arrows_are_found(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "insight", tmp_path / "insight", ignore=shutil.ignore_patterns("__pycache__", "*.xz")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, line in WRONG_ARROWS.items():
        path = (tmp_path / "insight").joinpath(*module.split(".")).with_suffix(".py")
        path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = _lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    for module in WRONG_ARROWS:
        assert f"insight.{module} -> insight." in done.stdout


def test_every_file_is_short_enough_to_read() -> None:
    long = {str(path.relative_to(ROOT)): count for path in FILES if (count := _lines(path)) > 600}
    assert not long


def test_package_files_only_explain_and_export() -> None:
    for path in FILES:
        if path.name != "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstring = ast.get_docstring(tree)
        assert docstring, path
        assert len(docstring.splitlines()) <= 3, path
        assert not [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))], path


def test_names_say_something() -> None:
    empty = re.compile(r"(utils?|helpers?|common|misc|manager)(\.py)?")
    named = [path for path in (ROOT / "insight").rglob("*") if empty.fullmatch(path.name)]
    assert not named


def test_tests_mirror_the_package() -> None:
    folders = {
        path.name for path in (ROOT / "insight").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    others = {"parity", "benchmarks", "__pycache__"}
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - others
    assert tested == folders - {"configs"}
    for folder in folders - {"configs"}:
        assert list((ROOT / "tests" / folder).rglob("test_*.py")), folder


RIDDLES = re.compile(
    r"^(Of (the|a|an|this|that|those|these|it|which|what|how|all|each)\b|"
    r"As (there|here|above|given|before)\b|"
    r"What |The same[ ,.;:]|Also |Whose |Among |That of |Those |None\.|It\.|Not |There\b.{0,12}$)"
)


@pytest.mark.slow
def test_no_two_test_files_have_one_name() -> None:
    # pytest imports a file under its bare name, so the second one of a name cannot be collected.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(set(names)) == len(names)


def test_sentences_have_a_subject() -> None:
    """Docstrings, their argument lines and comments may not begin with a riddle."""
    found = [f"{place}: {text[:60]}" for path in FILES for place, text in _prose(path) if RIDDLES.match(text)]
    assert not found, "\n".join(found)


def test_a_riddle_is_found(tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(
        'def f(limit):\n    """Do it.\n\n    Args:\n        limit: Of the memory.\n    """\n'
        "    # As there.\n    return 1\n"
    )
    assert [text for _, text in _prose(path) if RIDDLES.match(text)] == ["Of the memory.", "As there."]


def _prose(path: Path) -> Iterator[tuple[str, str]]:
    """Every place where a person begins to read: docstrings, their argument lines, blocks of comments."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        text = node.value if isinstance(node, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            for number, line in enumerate(text.value.splitlines()):
                stripped = re.sub(r"^\s+\w+( \([^)]*\))?: ", "", line) if number else line
                if not number or stripped != line:
                    yield f"{path}:{node.lineno + number}", stripped.strip()
    before = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != before + 1:
                yield f"{path}:{token.start[0]}", token.string.lstrip("# ")
            before = token.start[0]


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
