"""The shipped configuration of a mixture of experts, over a tiny run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import Outcome

from insight.reporting import read_metrics

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml", "--config", "mixture_of_experts", "--run.name", "tiny")
MIXTURE = "--model.network.feed_forward"


@pytest.mark.slow
def test_it_trains_over_another_configuration(insight: Insight, workplace: Path) -> None:
    outcome = insight(*FIT, f"{MIXTURE}.num_experts", "4")
    assert outcome.code == 0, outcome.err
    run = workplace / "runs/tiny/1"
    records = [record for record in read_metrics(run) if "train/loss" in record]
    assert len(records) == 4
    for record in records:
        assert record["train/expert_load_highest"] >= 1 >= record["train/expert_load_lowest"]
        assert record["train/router_balance"] > 0.9
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    feed_forward = config["model"]["init_args"]["network"]["init_args"]["feed_forward"]["init_args"]
    assert feed_forward["num_experts"] == 4
    assert feed_forward["balance"]["init_args"] == {"coefficient": 0.01}
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert weights["network.blocks.0.feed_forward.expert_down.weight"].shape[0] == 4
    assert insight("generate", "--checkpoint", str(run), "It is").code == 0


@pytest.mark.slow
def test_the_bias_is_chosen_and_kept(insight: Insight, workplace: Path) -> None:
    outcome = insight(*FIT, f"{MIXTURE}.balance", "BalanceBias", f"{MIXTURE}.balance.rate", "0.5")
    assert outcome.code == 0, outcome.err
    checkpoint = torch.load(workplace / "runs/tiny/1/checkpoints/last.ckpt", weights_only=True)
    bias = checkpoint["state_dict"]["network.blocks.0.feed_forward.router.choice_bias"]
    assert bias.abs().max() >= 0.5
    assert "BalanceBias" in json.dumps(checkpoint["insight"]["network"])


def test_mistakes_end_in_one_line(insight: Insight) -> None:
    line = insight(*FIT, f"{MIXTURE}.num_experts_per_token", "9").error_line
    assert "num_experts_per_token=9" in line
    assert "num_experts=8" in line
