"""``insight benchmark``: two real checkpoints side by side; every mistake in one line, nothing written."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome, run_insight, write_tiny

import insight as insight_package
from insight.reporting import read_summary
from insight.runtime.json_files import read_records

Insight = Callable[..., Outcome]
QUICK = ("--seconds", "0.1", "--num_processes", "1", "--batch_sizes", "1", "2")


@pytest.fixture(scope="session")
def other_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """A run with another tokenizer, another sequence length and another network, trained for longer."""
    folder = tmp_path_factory.mktemp("other")
    config = write_tiny(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        outcome = run_insight(
            "fit",
            f"--config={config}",
            "--trainer.max_steps=40",
            "--data.tokenizer=BPETokenizerConfig",
            "--data.tokenizer.vocabulary_size=280",
            "--data.sequence_length=24",
        )
    finally:
        os.chdir(before)
    assert outcome.code == 0, outcome.err
    return folder / "runs" / "tiny" / "1"


@pytest.mark.slow
def test_two_models_side_by_side(
    insight: Insight, finished_run: Path, other_run: Path, workplace: Path
) -> None:
    first, second = str(finished_run), str(other_run / "checkpoints" / "last.ckpt")
    outcome = insight("benchmark", first, second, "--text", "test.txt", *QUICK, "--output", "out")
    assert outcome.code == 0, outcome.err
    out = workplace / "out"
    assert sorted(file.name for file in out.iterdir()) == ["report.html", "results.jsonl", "summary.json"]
    num_bytes = len((workplace / "test.txt").read_bytes())
    metrics, records = read_summary(out), read_records(out / "results.jsonl")
    for model in (first, second):
        windows = [
            record for record in records if record["model"] == model and record["measure"] == "quality"
        ]
        assert sum(window["num_bytes"] for window in windows) == num_bytes
        bits = sum(window["nats"] for window in windows) / math.log(2) / num_bytes
        assert metrics[f"{model}/bits_per_byte"].value == pytest.approx(bits, rel=1e-12)
        assert metrics[f"{model}/bits_per_byte"].n == num_bytes
        for name in ("disk_bytes", "resident_bytes", "load_seconds", "batch_2/tokens_per_second"):
            assert metrics[f"{model}/{name}"].value > 0
        # Training's state lies in the file too, so the file is no measure of the model.
        assert metrics[f"{model}/weight_bytes"].value < metrics[f"{model}/disk_bytes"].value
    difference = metrics[f"{second}/bits_per_byte_difference"]
    assert difference.interval is not None
    assert difference.interval[0] < difference.value < difference.interval[1] < 0  # trained ten times as long
    assert f"{first}/bits_per_byte_difference" not in metrics
    speeds = defaultdict(list)
    for record in records:
        if record["measure"] == "speed":
            speeds[record["model"]].append(record["batch_size"])
    assert speeds == {first: [1, 2], second: [1, 2]}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["machine"]["num_cores"] >= 1
    assert summary["text"]["files"] == ["test.txt"]
    assert summary["text"]["bytes"] == num_bytes
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "comparison of models" in page
    assert 'id="chart-benchmark-size"' in page
    assert 'id="chart-benchmark-speed"' in page
    assert len(page) < 3_000_000
    assert f"{metrics[f'{second}/bits_per_byte'].value:.4f}" in outcome.out
    assert "tokens/s" in outcome.out


@pytest.mark.slow
def test_a_checkpoint_beside_its_quantized_form(
    insight: Insight, finished_run: Path, workplace: Path
) -> None:
    """Artefacts and checkpoints are taken alike, by folder and by file."""
    from insight.checkpoints import load_checkpoint
    from insight.optimization import QuantizationConfig, save_artifact

    checkpoint = finished_run / "checkpoints" / "best.ckpt"
    made = QuantizationConfig(method="int8_weight_only").build().apply(load_checkpoint(checkpoint))
    save_artifact(made, workplace / "small")
    outcome = insight(
        "benchmark", str(finished_run), "small", "--text", "test.txt", *QUICK, "--output", "out", "--json"
    )
    assert outcome.code == 0, outcome.err
    original, small = json.loads(outcome.out)["models"]
    assert small["weight_bytes"] == made.report.weight_bytes_after < original["weight_bytes"]
    assert small["disk_bytes"] < original["disk_bytes"]
    ends = [small["quality_difference"][end] for end in ("low", "value", "high")]
    assert ends == sorted(ends)
    assert 0 < abs(ends[1]) < 0.05 * original["bits_per_byte"]


@pytest.mark.slow
def test_a_model_against_itself_from_python(
    finished_run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No difference is found where there is none; text and folder are the defaults."""
    monkeypatch.chdir(finished_run.parents[2])  # its configuration names its text from there
    shutil.rmtree("runs/benchmark", ignore_errors=True)
    folder = insight_package.benchmark(
        [finished_run, finished_run], seconds=0.1, num_processes=1, batch_sizes=(1,), num_new_tokens=2
    )
    assert folder == Path("runs/benchmark/1")
    metrics = read_summary(folder)
    again = metrics[f"{finished_run} (2)/bits_per_byte_difference"]
    assert (again.value, again.interval) == (0.0, (0.0, 0.0))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["text"]["files"] == ["test.txt"]
    assert summary["settings"]["prompt_length"] == 30
    bits = metrics[f"{finished_run}/bits_per_byte"].value
    # The run's own test measured the same text in the same windows.
    assert bits == pytest.approx(read_summary(finished_run)["test/bits_per_byte"].value, rel=1e-6)
    shutil.rmtree("runs/benchmark")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["RUN", "nope"], ["MODEL=nope", "does not exist"]),
        (["RUN", "empty"], ["MODEL=empty", "holds no checkpoint"]),
        (["RUN", "train.txt"], ["train.txt", "is not a checkpoint of insight"]),
        ([], ["MODEL", "required"]),
        (["RUN", "--output", "empty"], ["--output=empty: exists already"]),
        (["RUN", "--output", "train.txt/out"], ["train.txt", "not a folder"]),
        (["RUN", "--text", "tset.txt"], ["--text=tset.txt", "did you mean test.txt?"]),
        (["RUN", "--seconds", "0"], ["seconds=0", "above 0"]),
        (["RUN", "--seconds", "nan"], ["seconds=nan"]),
        (["RUN", "--seconds", "long"], ["--seconds", "'long' is not a number"]),
        (["RUN", "--num_processes", "0"], ["num_processes=0", "at least 1"]),
        (["RUN", "--batch_sizes", "1", "0"], ["batch_sizes=0", "at least 1"]),
        (["RUN", "--prompt_length", "0"], ["prompt_length=0"]),
        (["RUN", "--num_new_tokens", "0"], ["num_new_tokens=0"]),
        (["RUN", "--prompt_length", "40"], ["prompt_length=40", "context (32 tokens)"]),
        (["RUN", "--seed", "-1"], ["seed=-1"]),
        (["RUN", "--device", "abacus"], ["--device=abacus"]),
        (["RUN", "--secnds", "1"], ["unknown option '--secnds'", "did you mean '--seconds'?"]),
        (["elsewhere.ckpt"], ["elsewhere.ckpt lies in no run folder", "--text"]),
    ],
)
def test_mistakes(
    insight: Insight, finished_run: Path, workplace: Path, options: list[str], said: list[str]
) -> None:
    (workplace / "empty").mkdir()
    shutil.copy(finished_run / "checkpoints" / "best.ckpt", workplace / "elsewhere.ckpt")
    before = sorted(workplace.rglob("*"))
    outcome = insight("benchmark", *[str(finished_run) if option == "RUN" else option for option in options])
    assert outcome.code == 2, outcome.err
    for words in said:
        assert words in outcome.error_line
    assert sorted(workplace.rglob("*")) == before


def test_a_model_that_is_damaged_leaves_nothing(
    insight: Insight, finished_run: Path, workplace: Path
) -> None:
    import torch

    contents = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    contents["state_dict"]["network.norm.weight"].fill_(math.nan)
    torch.save(contents, workplace / "broken.ckpt")
    outcome = insight("benchmark", "broken.ckpt", "--text", "test.txt", *QUICK, "--output", "out")
    assert outcome.code == 2
    assert "broken.ckpt: the network gives no finite probability" in outcome.error_line
    assert not (workplace / "out").exists()
    assert not [path for path in workplace.iterdir() if path.name.startswith(".out")]


def test_help_names_every_option(insight: Insight) -> None:
    outcome = insight("benchmark", "--help")
    assert outcome.code == 0
    for option in ("--output", "--text", "--batch_sizes", "--seconds", "--num_processes", "--json"):
        assert option in outcome.out
