"""``insight model average``: a mean of checkpoints is a model for every command, of either kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Outcome, run_insight
from tiny_translation import train_numbers

import insight

pytestmark = pytest.mark.slow

Insight = Callable[..., Outcome]
KEEPING = (
    "--trainer.callbacks+=RunCheckpoint",
    "--trainer.callbacks.every_n_steps=1",
    "--trainer.callbacks.keep_last=3",
)


def mean_of(paths: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of the networks of checkpoints, by hand."""
    states = [torch.load(path, weights_only=True)["state_dict"] for path in paths]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        for name, tensor in states[0].items()
        if name.startswith("network.")
    }


def check_mean(path: Path, run: Path, steps: list[int]) -> None:
    found = torch.load(path, weights_only=True)["state_dict"]
    expected = mean_of([run / f"checkpoints/last-{step:08d}.ckpt" for step in steps])
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-7, atol=0), name
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not all(torch.equal(found[name], last[name]) for name in found)


def test_the_mean_of_a_translation_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train_numbers(tmp_path, 6, "forward", *KEEPING)
    monkeypatch.chdir(tmp_path)
    outcome = run_insight("model", "average", str(run), "--last", "2")
    assert outcome.code == 0, outcome.err
    path = run / "checkpoints/average.ckpt"
    assert outcome.out == f"{path}  (the mean of steps 5, 6)\n"
    check_mean(path, run, [5, 6])
    weights = torch.load(path, weights_only=True)["state_dict"]
    shared = [weights[f"network.{side}.embedding.weight"].data_ptr() for side in ("encoder", "decoder")]
    assert shared[0] == shared[1]
    Path("in.txt").write_text("one two\n\nsix\n", encoding="utf-8")
    outcome = run_insight("translate", "--checkpoint", str(path), "in.txt")
    assert outcome.code == 0, outcome.err
    model = insight.load_model(path)
    assert model.languages == ("en", "es")
    expected = insight.translate(path, ["one two", "six"])
    assert outcome.out == f"{expected[0].text}\n\n{expected[1].text}\n"
    outcome = run_insight("validate", "--checkpoint", str(path))
    assert outcome.code == 0, outcome.err
    assert "validation/chrf" in outcome.out
    fit = ("fit", "--config", "numbers.yaml", "--trainer.max_steps=1")
    outcome = run_insight(*fit, f"--init_from={path}", "--trainer.limit_val_batches=0")
    assert outcome.code == 0, outcome.err
    assert f"initial weights: {path}" in outcome.err
    # The mean of two directions, or of two kinds of model, is none.
    contents = torch.load(path, weights_only=True)
    contents["insight"]["languages"] = ["es", "en", "forward"]
    torch.save(contents, "backwards.ckpt")
    outcome = run_insight("model", "average", str(path), "backwards.ckpt", "--output", "both.ckpt")
    assert outcome.code == 2
    assert "translates in another way" in outcome.error_line
    assert not Path("both.ckpt").exists()


def test_the_mean_of_a_decoder(insight: Insight, workplace: Path) -> None:
    fit = ("fit", "--config", "tiny.yaml", "--run.test=false")
    outcome = insight(*fit, *KEEPING)
    assert outcome.code == 0, outcome.err
    run = Path("runs/tiny/1")
    outcome = insight("model", "average", "runs/tiny", "--output", "mean.ckpt", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["steps"] == [2, 3, 4]
    check_mean(Path("mean.ckpt"), run, [2, 3, 4])
    named = ("last-00000002", "last-00000004", "last-00000003")
    outcome = insight(
        "model", "average", *(f"{run}/checkpoints/{name}.ckpt" for name in named), "--output=again.ckpt"
    )
    assert outcome.code == 0, outcome.err
    assert Path("again.ckpt").read_bytes() == Path("mean.ckpt").read_bytes()
    for command in (
        ("generate", "--checkpoint", "mean.ckpt", "--max_new_tokens", "4", "It"),
        ("test", "--config", "tiny.yaml", "--checkpoint", "mean.ckpt"),
        (*fit, "--init_from", "mean.ckpt", "--trainer.max_steps=1"),
        (*fit, "--resume=auto", "--trainer.max_steps=5"),
    ):
        outcome = insight(*command)
        assert outcome.code == 0, outcome.err
    outcome = insight(*fit, "--resume", "mean.ckpt")
    assert outcome.code == 2
    assert "--resume=mean.ckpt: holds the weights of a model alone" in outcome.error_line
    assert "--init_from" in outcome.error_line


def test_mistakes_are_one_line(insight: Insight, workplace: Path, finished_run: Path) -> None:
    for words, parts in (
        ((), ("CHECKPOINTS",)),
        (("nowhere",), ("CHECKPOINTS=nowhere: does not exist",)),
        (("tiny.yaml",), ("CHECKPOINTS=tiny.yaml: is one file",)),
        (("tiny.yaml", "train.txt"), ("not a checkpoint",)),
        ((str(finished_run), "--last", "9"), ("of its training (of step", "not 9", "keep_last: 5")),
        ((str(finished_run), "--last", "five"), ("'five' is not a whole number",)),
        ((str(finished_run), "--lats", "5"), ("unknown option '--lats'", "--last")),
        ((str(finished_run), "--last", "-1"), ("last=-1", "at least 2")),
    ):
        outcome = insight("model", "average", *words)
        assert outcome.code == 2, outcome.err
        assert all(part in outcome.error_line for part in parts), outcome.error_line
    assert not (finished_run / "checkpoints/average.ckpt").exists()
    assert "insight model average" in insight("average").error_line
