"""A package of somebody else brings an attack, an evaluator and a target; one of its plugins is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "riddle-plugins"
version = "1.0"

[project.entry-points."insight.attacks"]
riddles = "riddle_plugins.riddles:Riddles"
unfinished = "riddle_plugins.unfinished:Unfinished"
misplaced = "riddle_plugins.riddles:SaysEgg"
bias = "riddle_plugins.riddles:Riddles"

[project.entry-points."insight.evaluators"]
says_egg = "riddle_plugins.riddles:SaysEgg"

[project.entry-points."insight.targets"]
parrot = "riddle_plugins.riddles:parrot"
"""
RIDDLES = """
from dataclasses import dataclass

from insight.safety import Attack, Evaluator, Item, Score
from insight.safety.targets import CallableTarget


@dataclass(frozen=True)
class Riddles(Attack):
    num_riddles: int = 3

    def items(self, material, seed):
        return [Item(f"riddle/{i}", "generate", f"A box, {i}:") for i in range(self.num_riddles)]


@dataclass(frozen=True)
class SaysEgg(Evaluator):
    def score(self, item, response):
        return Score(float("egg" in response.texts[0]))


def parrot(argument):
    return CallableTarget("parrot", generate=lambda prompt, settings: argument)
"""
# What a user of the package would do; prints what the registries say.
USE = """
import json
from insight.runtime.errors import InsightError
from insight.safety import Material, registry
from insight.safety.suite import find_suite

def problem(load):
    try:
        load()
    except InsightError as error:
        return f"{error.problem} | {error.remedy}"

suite = find_suite("own.yaml")
measure = suite.measures[0]
items = measure.attack.items(Material(), 0)
target = registry.TARGETS.load("parrot")("an egg")
answers = target.generate([item.prompt for item in items], items[0].settings, [0] * len(items))
base = find_suite("base")
print(json.dumps({
    "attacks": registry.ATTACKS.names(),
    "num_items": len(items),
    "answers": answers,
    "broken": registry.ATTACKS.broken(),
    "unfinished": problem(lambda: registry.ATTACKS.load("unfinished")),
    "misplaced": problem(lambda: registry.ATTACKS.load("misplaced")),
    "typo": problem(lambda: registry.ATTACKS.load("ridles")),
    "bias": type(base.measures[[m.name for m in base.measures].index("bias")].attack).__module__,
}))
"""
SUITE = """
measures:
  - attack: {name: riddles, num_riddles: 2}
    evaluator: says_egg
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built and installed by pip into a folder of its own."""
    source = tmp_path_factory.mktemp("source")
    package = source / "riddle_plugins"
    package.mkdir()
    (source / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "riddles.py").write_text(RIDDLES, encoding="utf-8")
    (package / "unfinished.py").write_text("import a_module_that_is_not_there\n", encoding="utf-8")
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def use(folder: Path, path: Path | None) -> dict[str, Any]:
    (folder / "own.yaml").write_text(SUITE, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"failure": done.stderr}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_plugins_are_found_and_broken_ones_named_and_isolated(installed: Path, tmp_path: Path) -> None:
    found = use(tmp_path, installed)
    assert "failure" not in found, found
    assert {"riddles", "unfinished", "misplaced", "memorisation"} <= set(found["attacks"])
    assert found["num_items"] == 2
    assert found["answers"] == ["an egg", "an egg"]
    # Broken ones have a name, a package and a reason, and everything above worked beside them.
    assert set(found["broken"]) == {"unfinished", "misplaced", "bias"}
    assert "riddle-plugins" in found["unfinished"]
    assert "a_module_that_is_not_there" in found["unfinished"]
    assert "uninstall" in found["unfinished"]
    assert "riddle-plugins" in found["misplaced"]
    assert "subclass of insight.safety.Attack" in found["misplaced"]
    assert "did you mean 'riddles'" in found["typo"]
    # A built-in name stays built in.
    assert found["bias"].startswith("insight.safety.bias")


def test_without_the_package_there_are_none(tmp_path: Path) -> None:
    """The twin: it is the installed package that brings them."""
    assert "unknown attack 'riddles'" in use(tmp_path, None)["failure"]
