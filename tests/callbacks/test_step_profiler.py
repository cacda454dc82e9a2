"""StepProfiler: real files of real steps, and training that does not notice."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import tiny_fit, weights

from insight.callbacks.monitors import StepProfiler


def matrix_products(folder: Path) -> int:
    """Products of the tiny network's head in a trace: one forward and two backward a step."""
    trace = json.loads(gzip.decompress((folder / "profile" / "trace.json.gz").read_bytes()))
    names = [event.get("name") for event in trace["traceEvents"] if event.get("ph") == "X"]
    return sum(name in ("aten::mm", "aten::addmm") for name in names)


def test_it_leaves_a_trace_and_a_table_of_the_steps_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_fit(tmp_path / "two", [StepProfiler(start_step=4, num_steps=2)], max_steps=12)
    tiny_fit(tmp_path / "four", [StepProfiler(start_step=4, num_steps=4)], max_steps=12)
    assert matrix_products(tmp_path / "two") > 0
    assert matrix_products(tmp_path / "four") == 2 * matrix_products(tmp_path / "two")
    table = (tmp_path / "two" / "profile" / "operations.txt").read_text()
    assert table.startswith("Steps 4 to 5, torch ")
    assert "Self CPU" in table
    assert "aten::" in table
    assert f"insight: profile of 2 steps: {tmp_path / 'two' / 'profile'}\n" in capsys.readouterr().err


def test_accumulated_batches_belong_to_one_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 6, "limit_val_batches": 0}
    tiny_fit(tmp_path / "one", [StepProfiler(2, 2)], **options)
    tiny_fit(tmp_path / "three", [StepProfiler(2, 2)], accumulate_grad_batches=3, **options)
    assert matrix_products(tmp_path / "three") == 3 * matrix_products(tmp_path / "one")


def test_a_run_that_ends_first_keeps_what_there_is(tmp_path: Path) -> None:
    tiny_fit(tmp_path, [StepProfiler(start_step=4, num_steps=50)], max_steps=6)
    assert (tmp_path / "profile" / "operations.txt").read_text().startswith("Steps 4 to 5")
    tiny_fit(tmp_path / "never", [StepProfiler(start_step=40)], max_steps=6)
    assert not (tmp_path / "never" / "profile").exists()


def test_training_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    plain = weights(tiny_fit(tmp_path / "plain", [])[1])
    profiled = weights(tiny_fit(tmp_path / "profiled", [StepProfiler(3, 2, record_shapes=True)])[1])
    assert all(torch.equal(plain[name], profiled[name]) for name in plain)
