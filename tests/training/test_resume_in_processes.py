"""Two processes with dropout go on bit for bit, each with its own random state; one can go on alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny_training import LossRecorder, make_data, make_module, make_trainer

from insight.runtime.seeding import seed_everything
from insight.training import MuonAdamW
from insight.training.lightning_internals import step_completed
from insight.training.optimizers import muon_adamw as newton_schulz

N = 7
OPTIONS: dict[str, Any] = {
    "accumulate_grad_batches": 2,
    "val_check_interval": 10,  # the checkpoint comes after one, in the middle of an epoch
    "check_val_every_n_epoch": None,
    "limit_val_batches": 2,
}


class Save(pl.Callback):
    """Saves after a step, and once more inside the accumulation of the next; every process takes part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == N:
            name = "middle.ckpt" if step_completed(trainer) else "inside.ckpt"
            trainer.save_checkpoint(self.folder / name)


def run(folder: Path, processes: int, checkpoint: Path | None = None) -> dict[str, Any]:
    """2N steps of eight samples in all, or what is left of them."""
    seed_everything(1)
    recorder = LossRecorder()
    options = {"strategy": "ddp"} if processes > 1 else {}
    callbacks: list[pl.Callback] = [recorder] if checkpoint else [recorder, Save(folder)]
    trainer = make_trainer(folder, 2 * N, callbacks=callbacks, devices=processes, **OPTIONS, **options)
    module = make_module(dropout=0.2, optimizer=MuonAdamW(precision="float32"))
    trainer.fit(
        module,
        make_data(folder, batch_size=4 // processes),
        ckpt_path=None if checkpoint is None else str(checkpoint),
        weights_only=True,
    )
    return {
        "losses": recorder.losses,
        "step": trainer.global_step,
        "rank": trainer.global_rank,
        "weights": [p.detach().flatten().tolist() for p in module.parameters()],
        "draw": torch.rand(3).tolist(),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Uninterrupted, resumed, and resumed with a fault, all in the same two processes."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-W", "ignore", __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, {
        f"{name} {rank}": json.loads((folder / f"{name}-{rank}.json").read_text())
        for name in ("whole", "resumed", "inside", "faulty")
        for rank in range(2)
    }


@pytest.mark.slow
def test_two_processes_go_on_bit_for_bit(runs: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    _, results = runs
    for rank in range(2):
        whole, resumed = results[f"whole {rank}"], results[f"resumed {rank}"]
        assert resumed["step"] == 2 * N
        assert len(resumed["losses"]) == 2 * N, "a resume that trains nothing proves nothing"
        assert resumed["losses"] == whole["losses"][2 * N :]
        assert resumed["weights"] == whole["weights"]
        assert resumed["draw"] == whole["draw"]
    assert results["whole 0"]["weights"] == results["whole 1"]["weights"]


@pytest.mark.slow
def test_inside_an_accumulation_two_processes_go_on_up_to_rounding(
    runs: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    """What is saved there is the mean of their gradients."""
    for rank in range(2):
        whole, inside = runs[1][f"whole {rank}"], runs[1][f"inside {rank}"]
        assert len(inside["losses"]) == 2 * N - 1
        assert inside["losses"] == pytest.approx(whole["losses"][2 * N + 1 :], abs=1e-4)
        assert inside["draw"] == whole["draw"]


@pytest.mark.slow
def test_processes_drop_other_units(runs: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    assert runs[1]["whole 0"]["draw"] != runs[1]["whole 1"]["draw"]


@pytest.mark.slow
def test_processes_agree_on_the_precision_of_their_updates(
    runs: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    """Each measured another one to be faster; with two, the copies of the network would drift apart."""
    assert [runs[1][f"whole {rank}"]["dtype"] for rank in range(2)] == ["float32", "float32"]


@pytest.mark.slow
def test_the_second_random_state_dropped_would_be_noticed(
    runs: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    """The planted fault gives both processes the state of the first."""
    _, results = runs
    assert results["faulty 0"]["losses"][0] == results["whole 0"]["losses"][2 * N], "the first is not touched"
    assert results["faulty 1"]["losses"] != results["whole 1"]["losses"][2 * N :]
    assert results["faulty 0"]["weights"] != results["whole 0"]["weights"]


@pytest.mark.slow
def test_one_process_goes_on_with_the_checkpoint_of_two(
    runs: tuple[Path, dict[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = runs
    alone = run(folder, 1, folder / "middle.ckpt")
    assert alone["step"] == 2 * N
    assert len(alone["losses"]) == 2 * N
    assert "random states: saved by 2 processes, now 1" in capsys.readouterr().err


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    middle = place / "middle.ckpt"
    results = {"whole": run(place, 2), "resumed": run(place, 2, middle)}
    results["inside"] = run(place, 2, place / "inside.ckpt")
    rank = results["whole"]["rank"]
    content = torch.load(middle, weights_only=True)
    content["insight"]["random_states"][1] = content["insight"]["random_states"][0]
    damaged = place / f"damaged-{rank}.ckpt"
    torch.save(content, damaged)
    results["faulty"] = run(place, 2, damaged)
    newton_schulz.faster_dtype = lambda device: ("float32", "bfloat16")[rank]  # as when one was disturbed
    results["whole"]["dtype"] = newton_schulz.agreed_dtype("cpu")
    for name, result in results.items():
        (place / f"{name}-{rank}.json").write_text(json.dumps(result))
