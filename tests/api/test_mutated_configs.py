"""Mutated configurations: each ends in a plan, or in lines that say what is wrong; never in a traceback."""

from __future__ import annotations

import copy
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from insight.api.config_files import shipped_configs
from insight.api.configuration import InsightCLI
from insight.api.early_checks import check_early
from insight.runtime.errors import InsightError, SeveralMistakesError

NUM_MUTATIONS, NUM_QUICK = 500, 12
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -3, 10**9, 2**63, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf, "",
    " ", "no", "007", "1e-4", "12:00:00", "\u2603 \U0001f600", "\u202e\x07", "a" * 5000, "../..",
    "torch.optim.SGD", "os.system", "insight.models.Nothing", "Rope", [], {}, [[]], [None], [1, "a"],
    {"a": 1}, {"class_path": None}, {"class_path": "Rope"}, {"class_path": 3, "init_args": 4},
    {"init_args": []}, {"class_path": "os.system"}, {True: 1}, {None: None}, {"": ""},
    {"class_path": "AdamW", "init_args": {"learning_rate": "fast"}},
)  # fmt: skip
KEYS = ("unknown", "", "init_args", "class_path", "dict_kwargs", "a.b", "--seed", "\u00e9", "config", "help")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a configuration, without the whole."""
    found = [path] if path else []
    if isinstance(value, dict):
        items: Any = value.items()
    else:
        items = enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def mutated(config: dict[str, Any], source: random.Random) -> dict[str, Any]:
    """A copy with one or a few places changed, removed, renamed, or given something unknown."""
    result = copy.deepcopy(config)
    for _ in range(source.choice((1, 1, 2, 3))):
        found = places(result)
        if not found:
            break
        path = source.choice(found)
        parent: Any = result
        for key in path[:-1]:
            parent = parent[key]
        action = source.choice(("change", "change", "change", "remove", "rename", "add", "wrap"))
        if action == "change":
            parent[path[-1]] = source.choice(VALUES)
        elif action == "remove":
            del parent[path[-1]]
        elif action == "wrap":
            parent[path[-1]] = source.choice(([parent[path[-1]]], {"class_path": parent[path[-1]]}))
        elif isinstance(parent, dict):
            value = parent.pop(path[-1]) if action == "rename" else source.choice(VALUES)
            parent[source.choice((*KEYS, f"{path[-1]}s"))] = value
    return result


def planned(path: Path) -> str:
    """``"plan"`` for a configuration that can be run on top of the quickstart, else its first mistake."""
    arguments = ["--config", "quickstart", "--config", str(path)]
    try:
        check_early("fit", arguments)
        cli = InsightCLI("fit", arguments)
        assert cli.placement.num_processes >= 1
    except InsightError as error:
        mistakes = error.errors if isinstance(error, SeveralMistakesError) else (error,)
        for mistake in mistakes:
            assert mistake.exit_code == 2, mistake
            assert str(mistake).strip()
        return str(mistakes[0])
    return "plan"


def configs() -> list[dict[str, Any]]:
    """Every shipped configuration."""
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in shipped_configs().values()]


def check(seeds: range, tmp_path: Path) -> list[str]:
    originals = configs()
    ends = []
    for seed in seeds:
        source = random.Random(seed)
        config = mutated(originals[seed % len(originals)], source)
        path = tmp_path / f"{seed}.yaml"
        path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        begun = time.monotonic()
        try:
            ends.append(planned(path))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {path.read_text(encoding='utf-8')}") from error
        assert time.monotonic() - begun < 60, f"seed {seed} takes too long"
    return ends


def test_a_slice_of_the_mutations(tmp_path: Path) -> None:
    assert any(end != "plan" for end in check(range(NUM_QUICK), tmp_path))


@pytest.mark.slow
def test_the_other_mutations(tmp_path: Path) -> None:
    ends = check(range(NUM_QUICK, NUM_MUTATIONS), tmp_path)
    assert NUM_MUTATIONS / 20 < sum(end == "plan" for end in ends) < NUM_MUTATIONS / 2


@pytest.mark.slow
def test_the_shipped_configurations_are_plans(tmp_path: Path) -> None:
    quickstart = shipped_configs()["quickstart"]
    assert planned(quickstart) == "plan"
