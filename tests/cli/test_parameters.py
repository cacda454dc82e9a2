"""Options that are made of a signature: types, choices, defaults, help, both spellings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from insight.cli.arguments import CommandParser, add_parameters, chosen
from insight.runtime.errors import ConfigError


def measure(
    models: Sequence[str],
    output: str | Path,
    *,
    group_size: int | None = None,
    share: float = 0.5,
    sizes: tuple[int, ...] = (1, 8),
    text: Sequence[str] = (),
    mode: Literal["on", "off"] = "off",
    **more: Any,
) -> None:
    """Do nothing.

    Args:
        models: Models to measure.
        output: The folder
            to write.
        group_size: Inputs that share a scale.
        share: Share of the 100% that ``may`` be lost.
        sizes: Sequences at a time.
        text: Text to measure on.
        mode: Whether it is on.
        more: Nothing.
    """


def parser() -> CommandParser:
    made = CommandParser(prog="insight measure")
    add_parameters(made, measure, positional=("models",))
    made.add_argument("--json", action="store_true")
    return made


def test_values_have_their_types_and_what_is_left_out_keeps_its_default() -> None:
    options = parser().parse_args(["a", "b", "--output", "o"])
    assert chosen(options, measure) == {"models": ["a", "b"], "output": "o"}
    line = "a --output o --group-size 4 --share 1e-3 --sizes 2 4 --text x --text y --mode on --json"
    assert chosen(parser().parse_args(line.split()), measure) == {
        "models": ["a"],
        "output": "o",
        "group_size": 4,
        "share": 1e-3,
        "sizes": [2, 4],
        "text": ["x", "y"],
        "mode": "on",
    }
    assert parser().parse_args(["a", "--output", "o", "--group_size", "4"]).group_size == 4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a", "--output"),
        ("a --output o --share x", "'x' is not a number"),
        ("a --output o --group_size 1.5", "'1.5' is not a whole number"),
        ("a --output o --mode onn", "did you mean 'on'?"),
        ("a --output o --group_sizes 3", "did you mean '--group_size'?"),
    ],
)
def test_mistakes(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        parser().parse_args(line.split())


def test_help_comes_from_the_docstring() -> None:
    text = " ".join(parser().format_help().split())
    assert "--output PATH the folder to write" in text
    assert "share of the 100% that may be lost (default: 0.5)" in text
    assert "sequences at a time (default: 1 8)" in text
    assert "inputs that share a scale --share" in text  # nothing is said about a default of None
