"""Two processes balance experts as one would: the bias follows the counts of both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import make_data, make_trainer

from insight.models import BalanceBias, DecoderConfig, GroupedQueryAttention, MixtureOfExperts, Router
from insight.runtime.seeding import seed_everything
from insight.training import AdamW, LanguageModelingModule
from insight.training.step import AccumulationWindow

NUM_STEPS = 8


def run(folder: Path, processes: int, batch_size: int) -> dict[str, Any]:
    """Train on this many processes; in the child processes, too, when Lightning starts them from here."""
    seed_everything(1)
    torch.set_num_threads(1)
    mixture = MixtureOfExperts(8, 2, intermediate_size=16, balance=BalanceBias(0.01))
    attention = GroupedQueryAttention(num_heads=4, num_key_value_heads=2)
    network = DecoderConfig(32, 2, attention=attention, feed_forward=mixture, max_sequence_length=64)
    module = LanguageModelingModule(network, optimizer=AdamW(learning_rate=0.003), compile="off")
    options = {"devices": processes, "strategy": "ddp"} if processes > 1 else {}
    trainer = make_trainer(folder, NUM_STEPS, log_every_n_steps=1, **options)
    trainer.fit(module, make_data(folder, batch_size=batch_size))
    routers = [each for each in module.network.modules() if isinstance(each, Router)]
    return {
        "rank": trainer.global_rank,
        "biases": [router.choice_bias.tolist() for router in routers if router.choice_bias is not None],
        "weight": float(sum(p.detach().double().abs().sum() for p in module.parameters())),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both trainings of the same two processes left behind."""
    folder = tmp_path_factory.mktemp("two")
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    """One process."""
    return run(folder, 1, batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "local counts"])
def test_two_processes_move_the_bias_as_one(folder: Path, one: dict[str, Any], fault: str) -> None:
    """With the planted fault, each process moves its bias by the tokens that it saw itself."""
    two = json.loads((folder / f"{fault}.json").read_text())
    assert any(value for bias in one["biases"] for value in bias)
    same = torch.allclose(torch.tensor(one["biases"]), torch.tensor(two["biases"]), atol=1e-6)
    assert same == (fault == "none")
    if fault == "none":
        assert two["weight"] == pytest.approx(one["weight"], rel=1e-6)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for fault in ("none", "local counts"):
        if fault == "local counts":
            AccumulationWindow.expert_totals = lambda self, *_: self.expert_counts  # type: ignore[method-assign]
        result = run(place, 2, batch_size=4)
        if result["rank"] == 0:
            (place / f"{fault}.json").write_text(json.dumps(result))
