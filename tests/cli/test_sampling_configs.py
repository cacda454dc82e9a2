"""``data.sampling`` on the command line and in shipped files: trained, recorded, resumed, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import Outcome

from insight.reporting import read_metrics

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml")


def losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["train/loss"] for record in read_metrics(run) if "train/loss" in record}


def write_documents(folder: Path) -> None:
    lines = [json.dumps({"text": f"Document {index}. " + "A word. " * (index % 9)}) for index in range(60)]
    (folder / "many.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def overlay(folder: Path, name: str, **data: object) -> str:
    """A shipped configuration with the text of the test and lengths that fit it."""
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / f"{name}.yaml").read_text())
    config["data"] |= data
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_packing(insight: Insight, workplace: Path) -> None:
    write_documents(workplace)
    config = overlay(workplace, "packing", train_files="many.jsonl", sequence_length=32)
    outcome = insight(*FIT, "--config", config, "--trainer.max_steps=6")
    assert outcome.code == 0, outcome.err
    assert "of the places stay empty" in outcome.err
    run = workplace / "runs" / "packing" / "1"
    assert len(losses(run)) == 6
    record = json.loads((run / "run.json").read_text())["data"]
    assert record["sampling"]["class_path"] == "insight.data.Packing"
    assert 0 <= record["samples"]["waste"] < 0.2
    assert "waste" in (run / "report.html").read_text()


@pytest.mark.slow
def test_mixture_goes_on_in_the_middle_of_its_warm_up(insight: Insight, workplace: Path) -> None:
    (workplace / "b.txt").write_text("Other words, of another corpus. " * 30, encoding="utf-8")
    config = overlay(workplace, "mixture", train_files={"society": "train.txt", "sense": "b.txt"})
    warmup = "--data.sampling.init_args."
    options = (
        "--config", config, f"{warmup}start_length=4", f"{warmup}num_batches=10",
        "--model.schedule=Constant", "--model.network.dropout=0.2",
    )  # fmt: skip
    assert insight(*FIT, *options, "--trainer.max_steps=9").code == 0
    assert insight(*FIT, *options, "--trainer.max_steps=4").code == 0
    resumed = insight("fit", "--resume", "runs/mixture/2", "--trainer.max_steps=9")
    assert resumed.code == 0, resumed.err
    runs = workplace / "runs" / "mixture"
    assert losses(runs / "2") == losses(runs / "1")
    assert len(losses(runs / "1")) == 9
    facts = json.loads((runs / "1" / "run.json").read_text())["data"]["samples"]
    assert facts["society"]["share"] == 0.6


@pytest.mark.slow
def test_the_shipped_configurations_pass_the_check(insight: Insight, workplace: Path) -> None:
    """As they are, on the quickstart's text and lengths, with a small network and a tokenizer of bytes."""
    small = (
        "--data.tokenizer=ByteTokenizerConfig",
        "--model.network.hidden_size=16", "--model.network.num_layers=1",
        "--run.num_threads=1", "--trainer.precision=32-true",
        "--run.time_budget=null", "--trainer.max_steps=9",  # a budget counts from the start of the process
    )  # fmt: skip
    for name in ("packing", "mixture"):
        outcome = insight("check", "--config", "quickstart", "--config", name, *small)
        assert outcome.code == 0, outcome.err


def test_help_explains_it(insight: Insight) -> None:
    shown = insight("fit", "--data.help", "insight.LanguageModelingDataModule")
    assert shown.code == 0, shown.err
    assert "--data.sampling" in shown.out
    for name in ("Windows", "Packing", "Mixture", "SequenceLengthWarmup"):
        assert name in shown.out
