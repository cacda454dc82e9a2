"""The parser works the defaults of a class out once, and parses as jsonargparse's own does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from insight.api import configuration
from insight.api.configuration import InsightCLI
from insight.api.parsing import Parser


class Uncopied(Parser):
    """The twin: it hands out what it knows, and not a copy."""

    def get_defaults(self, *args: Any, **kwargs: Any) -> Namespace:
        super().get_defaults(*args, **kwargs)
        assert self._known
        return self._known[1]


def saved(*options: str) -> str:
    return InsightCLI("fit", list(options)).saved_config()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--config", "quickstart", "--config", "attention/gated_delta_hybrid"],
        ["--config", "translation", "--model.network.encoder.num_layers=3"],
    ],
    ids=lambda options: str(options[-1]),
)
def test_the_same_is_parsed_without_it(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    changed = saved(*options, "--model.optimizer.learning_rate=0.5")
    ours = saved(*options)
    assert ours != changed
    monkeypatch.setattr(configuration, "_Parser", LightningArgumentParser)
    assert saved(*options) == ours


@pytest.mark.parametrize(("kind", "expected"), [(Parser, [1]), (Uncopied, [1, 2])])
def test_who_changes_the_defaults_changes_a_copy(kind: type[Parser], expected: list[int]) -> None:
    parser = kind()
    parser.add_argument("--sizes", type=list[int], default=[1])
    parser.get_defaults().sizes.append(2)
    assert parser.get_defaults().sizes == expected


@pytest.mark.parametrize("kind", ["known", "plain"])
def test_the_defaults_of_a_class_are_worked_out_once(
    workplace: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: Counter[int] = Counter()
    work_out = jsonargparse.ArgumentParser.get_defaults

    def counted(self: Any, *args: Any, **kwargs: Any) -> Namespace:
        times[id(self)] += 1
        return work_out(self, *args, **kwargs)

    monkeypatch.setattr(jsonargparse.ArgumentParser, "get_defaults", counted)
    if kind == "plain":
        monkeypatch.setattr(configuration, "_Parser", LightningArgumentParser)
    saved("--config", "tiny.yaml")
    assert times
    assert (max(times.values()) == 1) == (kind == "known")


def test_a_default_that_is_set_later_counts() -> None:
    parser = Parser()
    parser.add_argument("--size", type=int, default=1)
    assert parser.get_defaults().size == 1
    parser.set_defaults({"size": 2})
    assert parser.get_defaults().size == 2
    parser.add_argument("--other", type=int, default=3)
    assert parser.get_defaults().other == 3
