"""Two processes come to one verdict, also where only one of them has seen the bad text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny_training import make_data, make_module, make_trainer

from insight.runtime.seeding import seed_everything
from insight.training import Guard, SpikeDetector
from insight.training.accumulation import AccumulationWindow

NAN_STEP, SPIKE_STEP, NUM_STEPS = 40, 50, 54


class BadTextOfOne(pl.Callback):
    """In the second process alone: a loss that is no number, later text that nobody has seen."""

    def __init__(self) -> None:
        self.weights: list[float] = []
        self._is_due = False

    def on_train_start(self, trainer: Any, module: Any) -> None:
        network = module.network
        network.register_forward_hook(lambda *args: args[-1] * float("nan") if self._is_due else None)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        step, is_second = trainer.global_step, trainer.global_rank == 1
        self._is_due = is_second and step == NAN_STEP
        if is_second and step == SPIKE_STEP:
            batch.targets[:] = torch.arange(batch.targets.numel()).view_as(batch.targets) % 7 + 240

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.weights.append(float(sum(p.detach().double().abs().sum() for p in module.parameters())))


def run(folder: Path) -> dict[str, Any]:
    seed_everything(1)
    torch.set_num_threads(1)
    bad = BadTextOfOne()
    trainer = make_trainer(folder, NUM_STEPS, callbacks=[bad], devices=2, strategy="ddp")
    guard = Guard(non_finite="skip", spikes=SpikeDetector(window=16, min_losses=8, action="skip"))
    module = make_module(guard=guard)
    trainer.fit(module, make_data(folder))
    state = module.guard.state_dict()
    return {"rank": trainer.global_rank, "weights": bad.weights, "guard": state}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "local losses"])
def test_both_leave_the_step_out(tmp_path: Path, fault: str) -> None:
    """With the planted fault, each process judges the loss of its own rows."""
    command = [sys.executable, __file__, str(tmp_path), fault]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(first["weights"]) == NUM_STEPS
    if fault == "none":
        assert first["weights"] == second["weights"]
        assert first["guard"] == second["guard"]
        assert first["guard"]["num_skipped"] == 2
        for step in (NAN_STEP, SPIKE_STEP):
            assert first["weights"][step] == first["weights"][step - 1]
            assert first["weights"][step + 1] != first["weights"][step]
        # Each wrote down its own rows.
        for name, rank in (("suspicious_batches.jsonl", 0), ("suspicious_batches.rank1.jsonl", 1)):
            records = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
            assert [record["step"] for record in records] == [NAN_STEP, SPIKE_STEP]
            samples = [sample["sample"] for sample in records[1]["samples"]]
            assert samples == [8 * SPIKE_STEP + 2 * row + rank for row in range(4)]
    else:
        assert first["weights"] != second["weights"]


def own_totals(self: AccumulationWindow, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return self.negative_log_likelihood, self.num_valid.to(torch.float32)


if __name__ == "__main__":
    if sys.argv[2] == "local losses":
        AccumulationWindow.totals = own_totals  # type: ignore[method-assign]
    result = run(Path(sys.argv[1]))
    (Path(sys.argv[1]) / f"{result['rank']}.json").write_text(json.dumps(result))
