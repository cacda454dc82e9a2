"""Two processes train as one would: same gradient of a global batch, same metrics, one checkpoint."""

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
from insight.training import MuonAdamW
from insight.training.accumulation import AccumulationWindow

NUM_STEPS = 6


class Recorder(pl.Callback):
    """Ignores targets unevenly over the rows, and keeps what every step logged."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        for row, row_id in enumerate(batch.input_ids.sum(1).tolist()):
            batch.targets[row, row_id % 29 :] = -100

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))
            self.norms.append(float(trainer.callback_metrics["train/gradient_norm"]))


def run(folder: Path, processes: int, batch_size: int, accumulate: int) -> dict[str, Any]:
    """Train on this many processes; in the child processes, too, when Lightning starts them from here."""
    seed_everything(1)
    torch.set_num_threads(1)
    recorder = Recorder()
    options: dict[str, Any] = {"devices": processes, "accumulate_grad_batches": accumulate}
    if processes > 1:
        options["strategy"] = "ddp"
    trainer = make_trainer(
        folder,
        NUM_STEPS,
        callbacks=[recorder],
        gradient_clip_val=1.0,
        log_every_n_steps=1,
        limit_val_batches=None,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        **options,
    )
    module = make_module(optimizer=MuonAdamW(precision="float32"))  # bfloat16 blows last bits up
    data = make_data(folder, batch_size=batch_size)
    trainer.fit(module, data)
    validated = {name: float(value) for name, value in trainer.callback_metrics.items() if "valid" in name}
    return {
        "rank": trainer.global_rank,
        "losses": recorder.losses,
        "norms": recorder.norms,
        "validated": validated,
        "consumed": data.state_dict()["num_samples_consumed"],
        "weight": float(sum(p.detach().double().abs().sum() for p in module.parameters())),
    }


def distributed(folder: Path, fault: str, accumulate: int) -> dict[str, Any]:
    command = [sys.executable, __file__, str(folder), fault, str(accumulate)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "accumulate"), [("none", 1), ("none", 2), ("local counts", 1)])
def test_two_processes_equal_one(tmp_path: Path, fault: str, accumulate: int) -> None:
    """With the planted fault, each process normalises by the valid tokens of its own rows."""
    two = distributed(tmp_path, fault, accumulate)
    one = run(tmp_path, 1, batch_size=8, accumulate=accumulate)
    assert len(two["losses"]) == NUM_STEPS
    assert two["consumed"] == one["consumed"] == 8 * NUM_STEPS * accumulate
    if fault == "none":
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
        assert two["norms"] == pytest.approx(one["norms"], rel=1e-4)
        assert two["validated"] == pytest.approx(one["validated"], rel=1e-5)
        assert two["weight"] == pytest.approx(one["weight"], rel=1e-6)
    else:
        assert two["losses"] != pytest.approx(one["losses"], abs=1e-4)


def local_totals(self: AccumulationWindow, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return self.negative_log_likelihood, self.num_valid.to(torch.float32) * 2


if __name__ == "__main__":
    if sys.argv[2] == "local counts":
        AccumulationWindow.totals = local_totals  # type: ignore[method-assign]
    outcome = run(Path(sys.argv[1]), 2, batch_size=4, accumulate=int(sys.argv[3]))
    if outcome["rank"] == 0:
        (Path(sys.argv[1]) / "result.json").write_text(json.dumps(outcome))
