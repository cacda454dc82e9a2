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

from insight.callbacks import RunCheckpoint
from insight.runtime.seeding import seed_everything
from insight.training import Guard, SpikeDetector
from insight.training.step import AccumulationWindow

NAN_STEP, SPIKE_STEP, NUM_STEPS = 40, 50, 54


class BadTextOfOne(pl.Callback):
    """In the second process alone: a loss that is no number, later text that nobody has seen."""

    def __init__(self, *nan_steps: int) -> None:
        self.nan_steps = nan_steps
        self.weights: list[float] = []
        self._is_due = False

    def on_train_start(self, trainer: Any, module: Any) -> None:
        network = module.network
        network.register_forward_hook(lambda *args: args[-1] * float("nan") if self._is_due else None)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        step, is_second = trainer.global_step, trainer.global_rank == 1
        self._is_due = is_second and step in self.nan_steps
        if is_second and step == SPIKE_STEP:
            batch.targets[:] = torch.arange(batch.targets.numel()).view_as(batch.targets) % 7 + 240

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.weights.append(_size(module.parameters()))


class SizesAtSteps(pl.Callback):
    """How large weights and optimizer state are when a step begins, behind whatever the guard does there."""

    def __init__(self) -> None:
        self.sizes: list[list[float]] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        training_step = module.training_step

        def measured(*args: Any) -> Any:
            states = trainer.optimizers[0].state_dict()["state"].values()
            kept = [value for state in states for value in state.values()]
            self.sizes.append([_size(module.parameters()), _size(kept)])
            return training_step(*args)

        module.training_step = measured


def _size(tensors: Any) -> float:
    whole = (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor for tensor in tensors)
    return float(sum(tensor.detach().double().abs().sum() for tensor in whole))


def run_sharded(folder: Path) -> dict[str, Any]:
    """Two bad steps in a row, the checkpoint before them is that of step 4."""
    seed_everything(1)
    torch.set_num_threads(1)
    sizes, bad = SizesAtSteps(), BadTextOfOne(5, 6)
    trainer = make_trainer(
        folder,
        9,
        callbacks=[bad, sizes, RunCheckpoint(every_n_steps=4)],
        enable_checkpointing=True,
        devices=2,
        strategy="fsdp2",
    )
    module = make_module(guard=Guard(non_finite="roll_back", num_in_a_row=2))
    trainer.fit(module, make_data(folder))
    return {"rank": trainer.global_rank, "sizes": sizes.sizes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three trainings left behind, all done by the same two processes."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    """What both processes tell about a training."""
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_a_network_in_two_parts_goes_back(folder: Path) -> None:
    first, second = (result["sizes"] for result in results(folder, "sharded"))
    assert first == second
    assert len(first) == 9
    assert first[5] == first[6]
    assert first[7] == first[4]
    assert first[7] != first[6]
    assert first[8] != first[7]


def run(folder: Path) -> dict[str, Any]:
    seed_everything(1)
    torch.set_num_threads(1)
    bad = BadTextOfOne(NAN_STEP)
    trainer = make_trainer(folder, NUM_STEPS, callbacks=[bad], devices=2, strategy="ddp")
    guard = Guard(non_finite="skip", spikes=SpikeDetector(window=16, min_losses=8, action="skip"))
    module = make_module(guard=guard)
    trainer.fit(module, make_data(folder))
    state = module.step.guard.state_dict()
    return {"rank": trainer.global_rank, "weights": bad.weights, "guard": state}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "local losses"])
def test_both_leave_the_step_out(folder: Path, fault: str) -> None:
    """With the planted fault, each process judges the loss of its own rows."""
    first, second = results(folder, fault)
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
            records = [json.loads(line) for line in (folder / fault / name).read_text().splitlines()]
            assert [record["step"] for record in records] == [NAN_STEP, SPIKE_STEP]
            samples = [sample["sample"] for sample in records[1]["samples"]]
            assert samples == [8 * SPIKE_STEP + 2 * row + rank for row in range(4)]
    else:
        assert first["weights"] != second["weights"]


def own_totals(self: AccumulationWindow, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return self.negative_log_likelihood, self.num_valid.to(torch.float32)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for name in ("sharded", "none", "local losses"):
        if name == "local losses":
            AccumulationWindow.totals = own_totals  # type: ignore[method-assign]
        (place / name).mkdir(exist_ok=True)
        result = (run_sharded if name == "sharded" else run)(place / name)
        (place / f"{name}-{result['rank']}.json").write_text(json.dumps(result))
