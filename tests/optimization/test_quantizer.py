"""Every method works or is refused with a reason, says what it did, and leaves the model it got alone."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from tiny_model import calibration, scores, some_ids, untrained
from torch._dynamo.utils import counters

from insight.checkpoints import LoadedCheckpoint
from insight.data.tokenizers import ByteTokenizer
from insight.optimization import METHODS, Calibration, QuantizationConfig, Quantizer
from insight.optimization.methods import modules_with_parameters
from insight.runtime.errors import ConfigError
from insight.runtime.hardware import compiler_path

needs_compiler = pytest.mark.skipif(compiler_path() is None, reason="torch.compile needs a C++ compiler")
INT8 = [name for name in METHODS if name != "bf16"]


def apply(model: LoadedCheckpoint, method: str, **options: Any) -> Any:
    return Quantizer(QuantizationConfig(method, **options)).apply(model, calibration(model.tokenizer))


def error(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.float() - right.float()).norm() / right.float().norm())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_method_stays_close_and_changes_nothing_else(
    untouched: LoadedCheckpoint, method: str, dtype: str
) -> None:
    optimized = apply(untouched, method, dtype=dtype)
    ids = some_ids()
    assert 0 < error(scores(optimized.checkpoint, ids), scores(untouched, ids)) < 0.1
    assert optimized.report.weight_bytes_after < optimized.report.weight_bytes_before
    assert optimized.checkpoint.metadata["quantization"]["method"] == method
    assert "quantization" not in untouched.metadata
    assert not optimized.checkpoint.network.training
    theirs = {parameter.data_ptr() for parameter in untouched.network.parameters()}
    ours = [p for p in optimized.checkpoint.network.parameters() if type(p) is torch.nn.Parameter]
    assert not theirs & {parameter.data_ptr() for parameter in ours}


def test_a_method_that_works_in_place_would_be_noticed(learned: LoadedCheckpoint) -> None:
    """The twin of the fixture's comparison: converting the network itself changes its weights."""
    model = dataclasses.replace(learned, network=copy.deepcopy(learned.network))
    quantizer = Quantizer(QuantizationConfig("int8_weight_only"))
    selection = quantizer.method.select(model.network, quantizer.config)
    quantizer.method.convert(model.network, selection, quantizer.config, None)
    assert any(type(parameter) is not torch.nn.Parameter for parameter in model.network.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tied", [False, True])
def test_no_module_is_passed_over(method: str, tied: bool) -> None:
    model = untrained(tie_embeddings=tied)
    report = apply(model, method).report
    named = [*report.modules_quantized, *(kept.name for kept in report.modules_kept)]
    expected = [name for name, _ in modules_with_parameters(model.network)]
    assert sorted(named) == sorted([*expected, "head"] if tied and method != "bf16" else expected)
    assert all(kept.reason for kept in report.modules_kept)
    if tied and method != "bf16":
        assert any(kept.name == "head" and "tied" in kept.reason for kept in report.modules_kept)


@pytest.mark.parametrize("method", INT8)
def test_integers_are_what_is_stored(method: str) -> None:
    model = untrained()
    optimized = apply(model, method)
    modules = dict(optimized.checkpoint.network.named_modules())
    for name in optimized.report.modules_quantized:
        assert modules[name].weight.qdata.dtype == torch.int8  # type: ignore[union-attr]
    assert modules["embedding"].weight.dtype == torch.float32
    assert "head" in optimized.report.modules_quantized or method == "int8_static"


def test_group_size_that_does_not_divide_keeps_a_module_and_says_so() -> None:
    model = untrained()  # inputs of 32 and, before `down`, 48
    report = apply(model, "int8_weight_only", group_size=32).report
    assert "blocks.0.feed_forward.gate_up" in report.modules_quantized
    kept = {one.name: one.reason for one in report.modules_kept}
    assert kept["blocks.0.feed_forward.down"] == "group_size=32 does not divide its 48 inputs"
    problems = Quantizer(QuantizationConfig("int8_weight_only", group_size=7)).check(model)
    assert "would quantize nothing" in problems[0].reason


def test_smaller_groups_lose_less(learned: LoadedCheckpoint) -> None:
    expected = scores(learned, some_ids())
    whole, grouped = (
        error(scores(apply(learned, "int8_weight_only", group_size=size).checkpoint, some_ids()), expected)
        for size in (None, 8)
    )
    assert grouped < whole


def test_static_scales_are_the_largest_magnitudes_of_the_calibration_text(learned: LoadedCheckpoint) -> None:
    largest: dict[str, float] = {}
    hooks = []
    for name, module in learned.network.named_modules():
        if isinstance(module, torch.nn.Linear):

            def remember(module: Any, inputs: Any, name: str = name) -> None:
                largest[name] = max(largest.get(name, 0.0), float(inputs[0].abs().max()))

            hooks.append(module.register_forward_pre_hook(remember))
    text = calibration(learned.tokenizer)
    with torch.no_grad():
        learned.network(torch.as_tensor(text.windows))
    for hook in hooks:
        hook.remove()
    optimized = apply(learned, "int8_static")
    modules = dict(optimized.checkpoint.network.named_modules())
    assert len(optimized.report.modules_quantized) == 8
    for name in optimized.report.modules_quantized:
        weight: Any = modules[name].weight
        steps = 63.5 if weight.reduce_range else 127.5
        assert float(weight.act_quant_scale) == pytest.approx(largest[name] / steps, rel=1e-4)
    assert any("AffineQuantizedMinMaxObserver" in note for note in optimized.report.notes)


@pytest.mark.slow
@needs_compiler
def test_compiled_it_writes_without_compiling_again_as_the_cache_grows(untouched: LoadedCheckpoint) -> None:
    torch._dynamo.reset()
    network = apply(untouched, "int8_dynamic", compile=True).checkpoint.network
    cache = network.make_cache(1, 60)
    with torch.inference_mode():
        network(some_ids(1, 20), cache=cache)
        for _ in range(3):
            network.logits(network(some_ids(1, 1), cache=cache)[:, -1])
        compilations = counters["stats"]["unique_graphs"]
        for _ in range(30):
            network.logits(network(some_ids(1, 1), cache=cache)[:, -1])
    assert counters["stats"]["unique_graphs"] == compilations > 0


@pytest.mark.slow
@needs_compiler
def test_a_network_that_is_compiled_for_every_length_would_be_noticed(untouched: LoadedCheckpoint) -> None:
    torch._dynamo.reset()
    network = copy.deepcopy(untouched.network)
    for block in network.blocks:
        block.compile(dynamic=False)
    cache = network.make_cache(1, 60)
    with torch.inference_mode():
        for _ in range(2):
            network(some_ids(1, 1), cache=cache)
        compilations = counters["stats"]["unique_graphs"]
        for _ in range(2):
            network(some_ids(1, 1), cache=cache)
    assert counters["stats"]["unique_graphs"] > compilations


def first_problem(model: LoadedCheckpoint, target: str | None = None, **options: Any) -> str:
    problems = Quantizer(QuantizationConfig("int8_dynamic", **options)).check(model, target)
    assert problems
    assert problems[0].remedy
    return problems[0].reason


def test_nothing_speaks_against_a_plain_model(learned: LoadedCheckpoint) -> None:
    for method in METHODS:
        assert Quantizer(QuantizationConfig(method)).check(learned) == []


def test_checking_draws_no_random_number(learned: LoadedCheckpoint) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    Quantizer(QuantizationConfig("int8_static")).check(learned)
    assert torch.equal(torch.rand(1), expected)


def test_a_weight_that_is_not_finite_is_named() -> None:
    model = untrained()
    with torch.no_grad():
        model.network.blocks[1].feed_forward.down.weight[3, 4] = float("nan")  # type: ignore[union-attr, index]
    assert first_problem(model) == "blocks.1.feed_forward.down.weight holds NaN or infinity"
    with pytest.raises(ConfigError, match="holds NaN"):
        apply(model, "bf16")


def test_nothing_is_quantized_twice() -> None:
    once = apply(untrained(), "int8_weight_only").checkpoint
    assert first_problem(once) == "the model is quantized already (int8_weight_only)"
    bare = dataclasses.replace(once, metadata={})
    assert "not a plain parameter" in first_problem(bare)


def test_wrapped_and_compiled_networks_are_refused() -> None:
    model = untrained()
    wrapped = dataclasses.replace(model, network=torch.nn.Sequential(model.network))  # type: ignore[arg-type]
    assert first_problem(wrapped) == "the network is wrapped in a Sequential"
    model.network.blocks[0].compile()
    assert first_problem(model) == "the network is compiled"


def test_without_a_compiler_only_compiling_is_refused(
    learned: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insight.optimization.quantizer.compiler_path", lambda: None)
    assert "no C++ compiler" in first_problem(learned, compile=True)
    assert Quantizer(QuantizationConfig("int8_dynamic")).check(learned) == []


def test_kernels_that_do_not_run_here_are_found_by_trying(
    learned: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> None:
        raise NotImplementedError("'int8' kernel not built\nmore")

    monkeypatch.setattr("insight.optimization.methods.quantize_", missing)
    assert first_problem(learned) == "int8_dynamic does not run here: 'int8' kernel not built"


def test_targets(learned: LoadedCheckpoint) -> None:
    assert "target mobile" in first_problem(learned, "mobile")
    with pytest.raises(ConfigError, match="did you mean 'cuda'"):
        Quantizer(QuantizationConfig()).check(learned, "cudaa")


def test_static_needs_text_of_the_same_tokenizer(learned: LoadedCheckpoint) -> None:
    quantizer = Quantizer(QuantizationConfig("int8_static"))
    with pytest.raises(ConfigError, match="needs training text"):
        quantizer.apply(learned)
    other = Calibration(calibration(ByteTokenizer()).windows, "0123456789")
    with pytest.raises(ConfigError, match="encoded by another tokenizer"):
        quantizer.apply(learned, other)


def test_configuration_travels_and_explains_mistakes() -> None:
    from insight.runtime.component import component_from_dict

    config = QuantizationConfig("int8_weight_only", True, "bfloat16", 32)
    assert component_from_dict(config.to_dict()) == config
    assert config.to_dict()["class_path"] == "insight.optimization.QuantizationConfig"
    with pytest.raises(ConfigError, match="did you mean 'int8_dynamic'"):
        QuantizationConfig("int8_dinamic")
    with pytest.raises(ConfigError) as error:
        QuantizationConfig("int8_static", group_size=32)
    assert (error.value.option, error.value.value) == ("group_size", 32)


@pytest.mark.parametrize(
    ("option", "value"),
    [("dtype", "float16"), ("compile", "on"), ("compile", 1)]
    + [("group_size", value) for value in (0, 1, -2, 2.5, True, math.nan, math.inf, "8")],
)
def test_values_that_cannot_work_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as mistake:
        QuantizationConfig("int8_weight_only", **{option: value})
    assert mistake.value.option == option
