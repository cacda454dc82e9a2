"""``--resume`` and ``--init_from``: what is gone on with, what is passed over, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Outcome

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml")
SAVING = ("--trainer.callbacks+=RunCheckpoint", "--trainer.callbacks.keep_every_n_steps=3")


@pytest.mark.slow
def test_resume_auto_passes_a_torn_checkpoint(insight: Insight, workplace: Path) -> None:
    asynchronous = "--trainer.callbacks.asynchronous=true"
    assert insight(*FIT, *SAVING, asynchronous, "--trainer.max_steps=4").code == 0
    folder = Path("runs/tiny/1/checkpoints")
    last, kept = folder / "last.ckpt", folder / "step-00000003.ckpt"
    expected = torch.load(last, weights_only=True)["state_dict"]
    whole = last.read_bytes()
    for path in (last, folder / "best.ckpt"):
        path.unlink()
        path.write_bytes(whole[: len(whole) // 2])
    outcome = insight(*FIT, *SAVING, asynchronous, "--resume=auto", "--trainer.max_steps=4")
    assert outcome.code == 0, outcome.err
    assert f"insight: {last} is passed over" in outcome.err
    assert f"resuming {kept}" in outcome.err
    found = torch.load(last, weights_only=True)
    assert found["global_step"] == 4
    assert all(torch.equal(found["state_dict"][name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--resume", "--init_from"])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            ("--model.network.hidden_size=32",),
            ["hidden_size", "embedding.weight has shape (257, 16), the network (257, 32)", " more"],
        ),
        (("--model.network.num_layers=2",), ["num_layers", "lacks the tensor "]),
        (
            ("--data.tokenizer=BPETokenizerConfig", "--data.tokenizer.vocabulary_size=270"),
            ["another tokenizer", "embedding.weight has shape (257, 16), the network (270, 16)"],
        ),
    ],
)
def test_the_first_tensors_that_do_not_fit_are_named(
    insight: Insight,
    workplace: Path,
    finished_run: Path,
    option: str,
    other: tuple[str, ...],
    said: list[str],
) -> None:
    shutil.copy(finished_run / "checkpoints" / "last.ckpt", workplace / "other.ckpt")
    outcome = insight(*FIT, *other, option, "other.ckpt")
    assert outcome.code == 2
    assert f"{option}=other.ckpt" in outcome.error_line
    for words in said:
        assert words in outcome.error_line
    assert not (workplace / "runs").exists()


@pytest.mark.slow
def test_other_data_is_refused_and_named(insight: Insight, workplace: Path) -> None:
    assert insight(*FIT).code == 0
    before = {path: path.read_bytes() for path in Path("runs/tiny/1").iterdir() if path.is_file()}
    outcome = insight("fit", "--resume", "runs/tiny/1", "--data.batch_size=2", "--trainer.max_steps=6")
    assert outcome.code == 2
    assert "its steps take 4 sequences, and data.batch_size=2" in outcome.error_line
    outcome = insight("fit", "--resume", "runs/tiny/1", "--data.seed=5", "--trainer.max_steps=6")
    assert outcome.code == 2
    assert "seed=5 (saved: 0)" in outcome.error_line
    after = {path: path.read_bytes() for path in Path("runs/tiny/1").iterdir() if path.is_file()}
    assert after == before, "what is refused changes nothing"
    halves = ("--data.batch_size=2", "--trainer.accumulate_grad_batches=2", "--trainer.max_steps=6")
    outcome = insight("fit", "--resume", "runs/tiny/1", *halves)
    assert outcome.code == 0, outcome.err
    assert "differs from the saved configuration: data.init_args.batch_size=2 (saved: 4)" in outcome.err


@pytest.mark.slow
def test_upload_and_saving_options_from_the_command_line(insight: Insight, workplace: Path) -> None:
    outcome = insight(*FIT, *SAVING, "--trainer.callbacks.keep_best=2", "--trainer.callbacks.upload_to=copy")
    assert outcome.code == 0, outcome.err
    local = {path.name for path in Path("runs/tiny/1/checkpoints").iterdir()}
    assert {"best-00000002.ckpt", "step-00000003.ckpt", "best.ckpt", "last.ckpt"} <= local
    assert {path.name for path in Path("copy/tiny/1").iterdir()} == local
    outcome = insight(*FIT, "--trainer.callbacks+=RunCheckpoint", "--trainer.callbacks.upload_to=nowhere://x")
    assert outcome.code == 2
    assert "upload_to=nowhere://x" in outcome.error_line


@pytest.mark.slow
def test_initial_weights_of_a_run_by_its_name(insight: Insight, workplace: Path) -> None:
    elsewhere = "--run.root=elsewhere"
    assert insight(*FIT, elsewhere, "--trainer.max_steps=2").code == 0
    outcome = insight(*FIT, elsewhere, "--init_from=tiny", "--trainer.max_steps=1")
    assert outcome.code == 0, outcome.err
    assert "initial weights: elsewhere/tiny/1/checkpoints/best.ckpt" in outcome.err
    begun = torch.load("elsewhere/tiny/2/checkpoints/last.ckpt", weights_only=True)
    assert begun["global_step"] == 1, "only the weights are taken over"
    state = begun["LanguageModelingDataModule"]
    assert state["num_samples_consumed"] == state["global_batch_size"]
