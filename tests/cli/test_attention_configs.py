"""Every file of ``configs/attention/`` builds over the quickstart, changing only YAML; some train here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import Outcome, run_insight

from insight.api.config_files import shipped_configs
from insight.api.configuration import InsightCLI
from insight.models import Alibi, DecoderConfig, DifferentialAttention, Rope

Insight = Callable[..., Outcome]
FOLDER = Path(__file__).parents[2] / "configs" / "attention"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.yaml"))]


@functools.cache
def network_of(*arguments: str) -> DecoderConfig:
    config: DecoderConfig = InsightCLI("fit", list(arguments)).model.network_config
    return config


def test_every_projection_and_position_has_a_file() -> None:
    projections = {"multi_head", "grouped_query", "multi_query", "latent", "differential", "window"}
    positions = {"rope", "rope_interleaved", "rope_yarn", "alibi", "relative_bias"}
    assert projections | positions | {"learned", "sinusoidal", "no_position"} <= set(NAMES)


def test_they_travel_with_the_package() -> None:
    assert {f"attention/{name}" for name in NAMES} <= set(shipped_configs())
    outcome = run_insight("model", "show", "--config", "quickstart", "--config", "attention/alibbi")
    assert "did you mean 'attention/alibi'?" in outcome.error_line


@pytest.mark.parametrize("name", NAMES)
def test_each_is_short_and_says_what_it_is(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"--config attention/{name}" in text
    assert len(text.splitlines()) <= 25
    assert list(yaml.safe_load(text)) == ["model"]
    assert list(yaml.safe_load(text)["model"]) == ["network"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_over_the_quickstart_at_full_size(name: str) -> None:
    config = network_of("--config", "quickstart", "--config", f"attention/{name}")
    plain = network_of("--config", "quickstart")
    assert (config == plain) == (name in ("grouped_query", "rope"))
    network = config.build(2048)
    network.logits(network(torch.arange(64)[None])).square().mean().backward()
    # A block that begins as the identity passes no gradient to what lies inside it.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


# test_documented_commands.py trains all of them over the quickstart.
QUICK = ("alibi", "differential", "latent", "learned")


@pytest.mark.parametrize("name", QUICK)
def test_trains_and_writes(name: str, insight: Insight, workplace: Path) -> None:
    options = ("--run.test=false", "--model.network.hidden_size=32")
    outcome = insight("fit", "--config", "tiny.yaml", "--config", f"attention/{name}", *options)
    assert outcome.code == 0, outcome.err
    run = workplace / "runs" / "tiny" / "1"
    assert (run / "report.html").is_file()
    assert (run / "samples.jsonl").read_text(encoding="utf-8")
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    trained = saved["model"]["init_args"]["network"]["init_args"]["attention"]["class_path"]
    wanted = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert trained.endswith(wanted["model"]["network"]["attention"]["class_path"])


@pytest.mark.slow
def test_a_projection_and_a_position_together() -> None:
    arguments = ("--config", "quickstart", "--config", "attention/differential")
    option = "--model.network.attention.position"
    attention = network_of(*arguments, option, "Alibi").attention
    assert isinstance(attention, DifferentialAttention)
    assert attention.position == Alibi()
    attention = network_of(*arguments, f"{option}.base", "500").attention
    assert isinstance(attention, DifferentialAttention)
    assert attention.position == Rope(500.0)
