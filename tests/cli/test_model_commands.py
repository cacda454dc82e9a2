"""``insight model``: what is listed can be shown, pasted back and estimated; mistakes are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import Outcome, run_insight

from insight.api.estimate import estimate_network
from insight.models import PRESETS, DecoderConfig, GroupedQueryAttention
from insight.runtime.component import component_from_dict
from insight.training import AdamW, MuonAdamW, OptimizerConfig, linear_cross_entropy

Insight = Callable[..., Outcome]


@pytest.mark.slow
def test_list_names_every_preset() -> None:
    outcome = run_insight("model", "list")
    assert outcome.code == 0, outcome.err
    header, *rows = outcome.out.splitlines()
    assert header.split() == ["name", "parameters", "layers", "hidden", "context", "source"]
    assert [row.split()[0] for row in rows] == list(PRESETS)
    gpt2 = next(row for row in rows if row.startswith("gpt2 "))
    assert "124 million" in gpt2
    assert "Radford" in gpt2


@pytest.mark.slow
def test_list_as_json() -> None:
    listed = json.loads(run_insight("model", "list", "--json").out)
    assert [entry["name"] for entry in listed] == list(PRESETS)
    about = {entry["name"]: entry for entry in listed}["gpt2"]
    assert about["num_parameters"] == 124_439_808
    assert (about["num_layers"], about["hidden_size"], about["max_sequence_length"]) == (12, 768, 1024)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_what_is_shown_can_be_pasted_back(name: str, tmp_path: Path) -> None:
    shown = run_insight("model", "show", name)
    assert shown.code == 0, shown.err
    (tmp_path / "network.yaml").write_text(shown.out, encoding="utf-8")
    again = run_insight("model", "show", "--config", str(tmp_path / "network.yaml"), "--json")
    assert again.code == 0, again.err
    assert component_from_dict(json.loads(again.out)) == PRESETS[name].config


@pytest.mark.slow
def test_shown_networks_train_under_model_network(insight: Insight, workplace: Path) -> None:
    tiny = yaml.safe_load((workplace / "tiny.yaml").read_text(encoding="utf-8"))
    shown = yaml.safe_load(run_insight("model", "show", "qwen-3-0.6b").out)
    arguments = shown["init_args"]
    arguments.update(hidden_size=16, num_layers=1, max_sequence_length=32)
    arguments["attention"]["init_args"].update(num_heads=2, num_key_value_heads=1, head_dim=8)
    tiny["model"]["network"] = shown
    (workplace / "pasted.yaml").write_text(yaml.safe_dump(tiny), encoding="utf-8")
    assert insight("check", "--config", "pasted.yaml").code == 0


@pytest.mark.slow
def test_a_run_is_shown_with_later_files_over_earlier_ones(insight: Insight, workplace: Path) -> None:
    (workplace / "more.yaml").write_text("model: {network: {num_layers: 7}}", encoding="utf-8")
    outcome = insight("model", "show", "--config", "tiny.yaml", "--config", "more.yaml", "--json")
    assert outcome.code == 0, outcome.err
    config = component_from_dict(json.loads(outcome.out))
    assert isinstance(config, DecoderConfig)
    assert (config.num_layers, config.hidden_size) == (7, 16)
    assert not (workplace / "runs").exists()


@pytest.mark.slow
def test_estimate_of_a_preset() -> None:
    outcome = run_insight("model", "estimate", "gpt2", "--batch_size", "2", "--sequence_length", "64")
    assert outcome.code == 0, outcome.err
    for words in ("124,439,808", "2 x 64 tokens", "32-true", "AdamW", "a token", "peak"):
        assert words in outcome.out
    numbers = json.loads(
        run_insight(
            *("model", "estimate", "gpt2", "--batch_size", "2", "--sequence_length", "64", "--json"),
            *("--precision", "bf16-mixed", "--optimizer", "muon"),
        ).out
    )
    assert numbers["num_parameters"] == 124_439_808
    assert numbers["weight_bytes"] == 4 * 124_439_808
    assert numbers["cache_bytes_per_token"] == 2 * 12 * 768 * 4
    assert numbers["optimizer"] == "MuonAdamW"
    assert numbers["optimizer_bytes"] < 2 * numbers["weight_bytes"]


def test_estimate_of_a_run_takes_its_own_settings(insight: Insight, workplace: Path) -> None:
    numbers = json.loads(insight("model", "estimate", "--config", "tiny.yaml", "--json").out)
    assert numbers["vocabulary_size"] == 257
    assert (numbers["batch_size"], numbers["sequence_length"]) == (4, 16)
    assert numbers["optimizer"] == "MuonAdamW"
    assert numbers["precision"] == "32-true"
    assert not (workplace / "runs").exists()


CONFIG = DecoderConfig(
    hidden_size=64, num_layers=2, attention=GroupedQueryAttention(4, 2), max_sequence_length=64
)


@pytest.mark.parametrize("optimizer", [AdamW(), MuonAdamW()], ids=["adamw", "muon"])
def test_optimizer_bytes_equal_its_states(optimizer: OptimizerConfig) -> None:
    estimate = estimate_network(CONFIG, 300, 2, 32, "32-true", optimizer)
    network = CONFIG.build(300)
    built = optimizer.build(network)
    network.logits(network(torch.zeros(2, 32, dtype=torch.int64))).sum().backward()
    built.step()
    states = [value for state in built.state.values() for value in state.values()]
    held = sum(value.nbytes for value in states if isinstance(value, torch.Tensor) and value.ndim)
    assert estimate["optimizer_bytes"] == held
    assert estimate["weight_bytes"] == sum(p.nbytes for p in network.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize(("vocabulary_size", "batch_size"), [(300, 8), (5000, 2)])
def test_peak_of_a_training_step_equals_what_the_allocator_gave_out(
    precision: str, vocabulary_size: int, batch_size: int
) -> None:
    estimate = estimate_network(CONFIG, vocabulary_size, batch_size, 64, precision, AdamW())
    network = CONFIG.build(vocabulary_size).train()
    if precision == "bf16-true":
        network.bfloat16()
    tokens = torch.zeros(batch_size, 64, dtype=torch.int64)
    with torch.profiler.profile(profile_memory=True) as profiler:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = linear_cross_entropy(network(tokens), network.head_weight, tokens).loss
        loss.backward()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    beside = estimate["peak_bytes"] - estimate["weight_bytes"] - estimate["optimizer_bytes"]
    assert beside == pytest.approx(highest, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show",), ["NAME and --config", "give one of them"]),
        (("show", "gpt2", "--config", "tiny.yaml"), ["give one of them"]),
        (("show", "gpt3"), ["there is no preset 'gpt3'", "did you mean 'gpt2'?"]),
        (("show", "--config", "missing.yaml"), ["missing.yaml", "no such file"]),
        (("show", "--config", "wrong.yaml"), ["hiden_size", "did you mean 'hidden_size'?"]),
        (("show", "--config", "odd.yaml"), ["num_heads", "must divide hidden_size"]),
        (("shwo",), ["unknown ACTION 'shwo'", "did you mean 'show'?"]),
        (("list", "--jsno"), ["unknown option '--jsno'", "did you mean '--json'?"]),
        (("estimate", "gpt2", "--batch_size", "0"), ["batch_size=0", "at least 1"]),
        (("estimate", "gpt2", "--batch_size", "many"), ["'many' is not a whole number"]),
        (("estimate", "gpt2", "--sequence_length", "-3"), ["sequence_length=-3"]),
        (("estimate", "gpt2", "--sequence_length", "2000"), ["2000", "1024"]),
        (("estimate", "gpt2", "--precision", "17"), ["unknown --precision '17'"]),
        (("estimate", "--config", "alone.yaml"), ["give --vocabulary_size"]),
        (("estimate", "--config", "alone.yaml", "--vocabulary_size", "0"), ["vocabulary_size=0"]),
    ],
)
def test_mistakes_are_one_line(
    insight: Insight, workplace: Path, arguments: tuple[str, ...], said: list[str]
) -> None:
    (workplace / "wrong.yaml").write_text("class_path: DecoderConfig\ninit_args: {hiden_size: 3}\n")
    (workplace / "odd.yaml").write_text("class_path: DecoderConfig\ninit_args: {hidden_size: 30}\n")
    (workplace / "alone.yaml").write_text("class_path: DecoderConfig\ninit_args: {num_layers: 1}\n")
    outcome = insight("model", *arguments)
    assert outcome.code == 2, outcome.err
    for words in said:
        assert words in outcome.error_line
