"""A search measures every candidate, skips what does not fit the time, and says so."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import LENGTH, TEXT, calibration, measured_text, store_of

from insight.checkpoints import LoadedCheckpoint
from insight.checkpoints.artifact import load_model
from insight.data.tokenizers import ByteTokenizer
from insight.optimization import METHODS, Calibration, QuantizationConfig, QuantizationSearch
from insight.optimization.config import plan
from insight.optimization.measurement.quality import MeasuredText
from insight.optimization.search import write_result
from insight.runtime.errors import ConfigError, InsightError


@pytest.fixture
def text(learned: LoadedCheckpoint, tmp_path: Path) -> MeasuredText:
    return measured_text(tmp_path / "store", learned.tokenizer)


def search(model: LoadedCheckpoint, text: MeasuredText, **options: Any) -> QuantizationSearch:
    settings = {"max_quality_loss": 0.2, "seconds": 1.0} | options
    return QuantizationSearch(model, text, calibration(model.tokenizer), **settings)


@pytest.mark.slow
def test_every_method_is_measured(untouched: LoadedCheckpoint, text: MeasuredText, tmp_path: Path) -> None:
    result = search(untouched, text).run(plan(compile="off", dtype="float32"))
    assert [one.name for one in result.candidates] == ["original", *(c.method for c in plan(compile="off"))]
    assert {one.method for one in result.candidates[1:]} == set(METHODS)
    for one in result.candidates:
        assert one.status == "ok"
        assert one.tokens_per_second
        assert one.prefill_seconds
        assert one.disk_bytes
    assert any(one.pareto for one in result.candidates)
    record = json.loads(json.dumps(result.to_record(), allow_nan=False))
    assert record["format_version"] == 1
    assert record["candidates"][0]["name"] == "original"
    assert record["candidates"][0]["quality_difference"] is None
    assert record["candidates"][1]["quality_difference"].keys() >= {"value", "low", "high"}
    assert record["candidates"][1]["modules_kept"][0].keys() == {"name", "reason", "is_linear"}
    assert record["machine"]["num_cores"] >= 1
    assert record["text"]["bytes"] > 0
    write_result(result, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == record
    assert (tmp_path / "out" / "quantization.json").exists() == (result.chosen != "original")


def test_one_method_is_taken_although_it_is_slow(
    untouched: LoadedCheckpoint, text: MeasuredText, tmp_path: Path
) -> None:
    configs = plan("int8_weight_only", "off", "float32")
    result = search(untouched, text).run(configs, may_keep=False)
    assert result.chosen == "int8_weight_only"
    write_result(result, tmp_path / "out")
    assert load_model(tmp_path / "out").metadata["quantization"]["method"] == "int8_weight_only"


def test_compiling_that_does_not_fit_the_time_is_not_begun(
    learned: LoadedCheckpoint, text: MeasuredText, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insight.optimization.quantizer.compiler_path", lambda: "g++")
    result = search(learned, text).run(plan("bf16", "auto", "float32"))
    compiled = next(one for one in result.candidates if one.compiled)
    assert compiled.status == "refused"
    assert compiled.reason.startswith("no time: compiling takes about")


@pytest.mark.slow
def test_compiling_that_turns_out_slow_is_not_gone_on_with(
    learned: LoadedCheckpoint, text: MeasuredText, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def slow(*_: Any) -> None:
        calls.append(1)
        time.sleep(0.5)

    monkeypatch.setattr("insight.optimization.quantizer.compiler_path", lambda: "g++")
    monkeypatch.setattr("insight.optimization.search._COMPILE_SECONDS", 0.0)
    monkeypatch.setattr("torch.nn.Module.compile", lambda module, **_: module.register_forward_hook(slow))
    result = search(learned, text).run(plan("bf16", "auto", "float32"))
    compiled = next(one for one in result.candidates if one.compiled)
    assert compiled.reason.startswith("no time: ")
    assert len(calls) == len(learned.network.blocks)  # one form, not three


def test_a_compiler_that_fails_refuses_the_candidate_only(
    learned: LoadedCheckpoint, text: MeasuredText, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("C++ compile error\nmany lines")

    monkeypatch.setattr("insight.optimization.quantizer.compiler_path", lambda: "g++")
    monkeypatch.setattr("insight.optimization.search._COMPILE_SECONDS", 0.0)
    monkeypatch.setattr("torch.nn.Module.compile", lambda module, **_: module.register_forward_hook(broken))
    result = search(learned, text).run(plan("bf16", "auto", "float32"))
    compiled = next(one for one in result.candidates if one.compiled)
    assert compiled.status == "refused"
    assert "compiling failed (C++ compile error many lines)" in compiled.reason


def test_a_loss_beyond_the_bound_is_an_error_for_a_method_that_was_asked_for(
    learned: LoadedCheckpoint, text: MeasuredText
) -> None:
    with pytest.raises(InsightError) as refusal:
        search(learned, text, max_quality_loss=0.0).run(
            plan("int8_dynamic", "off", "float32"), may_keep=False
        )
    assert (refusal.value.option, refusal.value.value) == ("max_quality_loss", 0.0)
    assert (refusal.value.option, refusal.value.value) == ("max_quality_loss", 0.0)


def test_what_no_candidate_can_work_on_is_refused_at_once(
    learned: LoadedCheckpoint, text: MeasuredText
) -> None:
    done = dataclasses.replace(learned, metadata=learned.metadata | {"quantization": {"method": "bf16"}})
    with pytest.raises(ConfigError, match="quantized already"):
        search(done, text).run(plan(dtype="float32"))


def test_text_of_another_tokenizer_is_refused(
    learned: LoadedCheckpoint, text: MeasuredText, tmp_path: Path
) -> None:
    other = Calibration(np.zeros((1, 4), dtype=np.int64), "0123456789")
    with pytest.raises(ConfigError, match="calibration text was encoded by another tokenizer"):
        QuantizationSearch(learned, text, other)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, True, "0.1"])
@pytest.mark.parametrize("option", ["seconds", "max_quality_loss"])
def test_numbers_that_cannot_work(
    learned: LoadedCheckpoint, text: MeasuredText, option: str, value: Any
) -> None:
    with pytest.raises(ConfigError) as mistake:
        search(learned, text, **{option: value})
    assert mistake.value.option == option


def test_plans() -> None:
    assert len(plan(dtype="float32")) == 2 * len(METHODS)
    assert [(c.method, c.compile) for c in plan(dtype="float32")][:2] == [
        ("int8_dynamic", True),  # tried before a slow machine runs out of time
        ("int8_dynamic", False),
    ]
    assert plan("bf16", "on", "float32") == [QuantizationConfig("bf16", True)]
    assert {config.dtype for config in plan()} <= {"float32", "bfloat16"}
    with pytest.raises(ConfigError, match="did you mean 'bf16'"):
        plan("bf61")
    with pytest.raises(ConfigError) as mistake:
        plan(compile="onn")
    assert (mistake.value.option, mistake.value.value) == ("compile", "onn")
    with pytest.raises(ConfigError) as error:
        plan("auto", group_size=8)
    assert (error.value.option, error.value.value) == ("group_size", 8)


def test_windows_are_spread_and_whole(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    text = MeasuredText.of(store_of(TEXT * 8, tmp_path / "store", tokenizer), tokenizer, LENGTH)
    everything = text.tokens(text.num_windows)
    assert len(everything) == text.store.num_tokens
    some = text.tokens(5)
    assert len(some) == 5 * LENGTH
    assert some[:LENGTH].tolist() == everything[:LENGTH].tolist()
    last = (text.store.num_tokens // LENGTH - 1) * LENGTH
    assert some[-LENGTH:].tolist() == everything[last : last + LENGTH].tolist()


def test_the_search_leaves_torch_as_it_was(learned: LoadedCheckpoint, text: MeasuredText) -> None:
    state = torch.random.get_rng_state()
    search(learned, text).run(plan("bf16", "off", "float32"))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_quality_is_measured_at_the_batch_size_of_use(learned: LoadedCheckpoint, text: MeasuredText) -> None:
    """Rounded activations depend on what is read together, so quality is that of one text at a time."""
    sizes: set[int] = set()
    hook = learned.network.register_forward_pre_hook(lambda module, inputs: sizes.add(len(inputs[0])))
    result = search(learned, text).run(plan("int8_dynamic", "off", "float32"))
    hook.remove()
    assert sizes == {1}
    assert result.to_record()["text"]["batch_size"] == 1
