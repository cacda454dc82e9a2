"""A run whose network is cut over two processes does all that a run does, and one process goes on with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run_insight
from real_processes import PYTHON_INSIGHT, TORCHRUN, losses, started

from insight.checkpoints import load_checkpoint
from insight.reporting import read_samples

TWO = ("--data.batch_size", "2", "--trainer.accelerator", "cpu", "--trainer.precision")
ONE = ("--data.batch_size", "4", "--trainer.devices", "1", "--trainer.strategy", "auto")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "precision"),
    [(PYTHON_INSIGHT, "32-true"), ((*TORCHRUN, "-m", "insight"), "bf16-mixed")],
    ids=["insight", "torchrun"],
)
def test_two_processes_then_one(workplace: Path, start: tuple[str, ...], precision: str) -> None:
    fit = ("fit", "--config", "tiny.yaml", "--config", "fsdp2", *TWO, precision, "--trainer.max_steps", "6")
    with started([*start, *fit], workplace, "fsdp2") as running:
        outcome = running.wait()
    assert outcome.code == 0, outcome.err
    run = workplace / "runs/fsdp2/1"
    assert read_samples(run)  # written by both, kept by the first
    checkpoint = run / "checkpoints/last.ckpt"
    assert load_checkpoint(checkpoint).metadata["step"] == 6
    assert list(losses(run)) == list(range(1, 7))

    outcome = run_insight("fit", "--resume", str(run), *ONE, "--trainer.max_steps", "9")
    assert outcome.code == 0, outcome.err
    assert list(losses(run)) == list(range(1, 10))
    assert load_checkpoint(checkpoint).metadata["step"] == 9


CALLBACK = '''\
"""How long the exchanges of each group wait."""

import json
from pathlib import Path

import torch
from lightning.pytorch import Callback


class TimeOuts(Callback):
    def on_fit_start(self, trainer, module):
        groups = [None, *trainer.strategy.device_mesh.get_all_groups()]
        groups = [group or torch.distributed.group.WORLD for group in groups]
        backends = [group._get_backend(torch.device("cpu")) for group in groups]
        seconds = [backend.options._timeout.total_seconds() for backend in backends]
        Path(f"time-outs-{trainer.global_rank}.json").write_text(json.dumps(seconds))
'''


@pytest.mark.slow
def test_processes_that_share_matrices_begin_with_the_weights_of_one(workplace: Path) -> None:
    heads = ("--model.network.attention.num_key_value_heads", "2")
    assert run_insight("fit", "--config", "tiny.yaml", *heads, "--trainer.max_steps", "4").code == 0
    (workplace / "shared.yaml").write_text(
        "run: {name: shared}\n"
        "trainer: {devices: 2, max_steps: 1, accelerator: cpu,\n"
        "  strategy: {class_path: FSDP2Strategy, init_args: {tensor_parallel_size: 2}}}\n"
    )
    (workplace / "time_outs.py").write_text(CALLBACK, encoding="utf-8")
    options = ("--config", "shared.yaml", *heads, "--init_from", "runs/tiny/1")
    options += ("--trainer.precision", "bf16-mixed")
    options += ("--run.hang_timeout", "3600", "--trainer.callbacks+", "time_outs.TimeOuts")
    with started([*PYTHON_INSIGHT, "fit", "--config", "tiny.yaml", *options], workplace, "shared") as running:
        outcome = running.wait()
    assert outcome.code == 0, outcome.err
    one, two = losses(workplace / "runs/tiny/1"), losses(workplace / "runs/shared/1")
    assert two[1] < one[1] - 0.05
    for rank in range(2):  # the watch judges before an exchange of any group times out
        waiting = json.loads((workplace / f"time-outs-{rank}.json").read_text(encoding="utf-8"))
        assert waiting == [3720.0] * 3
