"""Records survive crashes, and hold only what JSON allows."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import insight
from insight.runtime.errors import OutputError
from insight.runtime.json_files import append_record, plain, read_object, read_records, write_object


@dataclass(frozen=True)
class Point:
    x: float
    name: str


def test_values_become_what_json_allows() -> None:
    value = {
        1: math.nan,
        "inf": -math.inf,
        "array": np.arange(2),
        "number": np.float32(0.5),
        "path": Path("a/b"),
    }
    value |= {"point": Point(1.0, "p"), "tuple": (1, None, True)}
    expected = {"1": None, "inf": None, "array": [0, 1], "number": 0.5, "path": "a/b"}
    expected |= {"point": {"x": 1.0, "name": "p"}, "tuple": [1, None, True]}
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_any_text_round_trips(tmp_path: Path) -> None:
    text = "a\n\x00\x1b[31m\u2028\ud800</script>é"
    append_record(tmp_path / "r.jsonl", {"text": text})
    assert read_records(tmp_path / "r.jsonl") == [{"text": text}]
    assert (tmp_path / "r.jsonl").read_bytes().count(b"\n") == 1


def test_half_a_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    append_record(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2, "b')  # killed here
    assert read_records(path) == [{"a": 1}]
    append_record(path, {"a": 3})
    assert read_records(path) == [{"a": 1}, {"a": 3}]


def test_other_damage_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'\xff\xfe\n[1]\n3\n\n{"a": 1}\r\nNaN\n')
    assert read_records(path) == [{"a": 1}]
    assert read_records(tmp_path / "missing") == []
    (tmp_path / "o.json").write_text("{")
    assert read_object(tmp_path / "o.json") == {}
    assert read_object(tmp_path / "missing") == {}


def test_unwritable_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another output folder"):
        append_record(tmp_path / "file" / "r.jsonl", {})
    with pytest.raises(OutputError, match="choose another output folder"):
        write_object(tmp_path / "file" / "o.json", {})


# Values that never hold a measured number: keys and hashes, tokenizer files, messages between processes.
_UNMEASURED = (
    "data/",
    "api/tokenize.py",
    "api/fit.py",
    "api/config_files.py",
    "runtime/launching/",
    "runtime/json_",
)
_UNMEASURED_NAMES = {"safety/plan.py": "content_hash", "safety/toxicity_classifier.py": "write_model"}


def test_everything_measured_goes_through_this_writer() -> None:
    """A bare ``json.dumps`` writes NaN and Infinity, which no other JSON reader accepts."""
    root = Path(insight.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(_UNMEASURED) and name not in _UNMEASURED_NAMES:
            found += [f"{name}:{line}" for line in loose_writers(path.read_text(encoding="utf-8"))]
    assert found == []


def test_a_loose_writer_is_found() -> None:
    assert loose_writers("import json\nprint(json.dumps({'a': 1}))\njson.dump(1, f, indent=2)\n") == [2, 3]
    assert loose_writers("import json\njson.dumps(1, allow_nan=False)\n") == []


def loose_writers(source: str) -> list[int]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return sorted(
        call.lineno
        for call in calls
        if ast.unparse(call.func) in ("json.dumps", "json.dump")
        and not any(word.arg == "allow_nan" and ast.unparse(word.value) == "False" for word in call.keywords)
    )
