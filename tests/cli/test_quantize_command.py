"""`insight quantize`; its folder wherever a checkpoint is taken; mistakes leave one line, nothing else."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome

from insight.api.quantize import quantize
from insight.checkpoints.artifact import _hash
from insight.optimization import SearchResult
from insight.optimization.candidates import Candidate
from insight.reporting import read_summary

Insight = Callable[..., Outcome]
METHODS_IN_ORDER = ("int8_dynamic", "bf16", "int8_weight_only", "int8_static")
QUICK = ("--compile", "off", "--seconds", "1", "--max-quality-loss", "0.5")


@pytest.fixture(scope="session")
def artifact(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run's model with int8 weights."""
    from command_line import run_insight, write_tiny

    folder = tmp_path_factory.mktemp("artifact")
    write_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = run_insight(
            *("quantize", "--checkpoint", str(finished_run), "--output", "small"),
            *("--method", "int8_weight_only", *QUICK),
        )
    assert outcome.code == 0, outcome.err
    assert "int8_weight_only" in outcome.out
    return folder / "small"


@pytest.mark.slow
def test_the_folder_holds_everything(artifact: Path) -> None:
    assert {path.name for path in artifact.iterdir()} == {
        "config.yaml",
        "quantization.json",
        "report.json",
        "tokenizer.json",
        "weights.pt",
    }


@pytest.mark.slow
def test_it_is_tested_like_any_checkpoint(insight: Insight, artifact: Path, finished_run: Path) -> None:
    before = read_summary(finished_run)
    for command, split in (("test", "test"), ("validate", "validation")):
        whole = json.loads(insight(command, "--checkpoint", str(finished_run), "--json").out)
        small = insight(command, "--checkpoint", str(artifact), "--json")
        assert small.code == 0, small.err
        found = json.loads(small.out)
        assert found.keys() == whole.keys()
        assert found[f"{split}/bits_per_byte"] == pytest.approx(whole[f"{split}/bits_per_byte"], rel=0.02)
        assert found[f"{split}/bits_per_byte"] != whole[f"{split}/bits_per_byte"]
    assert read_summary(finished_run).keys() == before.keys()


@pytest.mark.slow
def test_it_writes_and_predicts(insight: Insight, artifact: Path, workplace: Path) -> None:
    written = insight("generate", "--checkpoint", str(artifact), "It is", "--max_new_tokens", "5", "--json")
    assert written.code == 0, written.err
    assert json.loads(written.out)["prompt"] == "It is"
    predicted = insight("predict", "--checkpoint", str(artifact), "--data.predict_files", "test.txt")
    assert predicted.code == 0, predicted.err
    document = json.loads(predicted.out.splitlines()[0])
    tested = insight("test", "--checkpoint", str(artifact), "--json")
    assert document["bits_per_byte"] == pytest.approx(json.loads(tested.out)["test/bits_per_byte"])


@pytest.mark.slow
def test_auto_prints_the_table_and_what_follows(
    insight: Insight, finished_run: Path, workplace: Path
) -> None:
    outcome = insight("quantize", "--checkpoint", str(finished_run), "--output", "best", *QUICK)
    assert outcome.code == 0, outcome.err
    for name in ("original", "bf16", "int8_weight_only", "int8_dynamic", "int8_static"):
        assert any(line[2:].startswith(name) for line in outcome.out.splitlines()), outcome.out
    assert "*" in outcome.out
    # Nobody watches a terminal here: each step of the search says how long it has taken and will take.
    said = [
        line for line in outcome.err.splitlines() if re.search(r"\(\S+ s spent, about \S+ s left\)$", line)
    ]
    assert len(said) == 5
    for number, (line, method) in enumerate(zip(said, METHODS_IN_ORDER, strict=False), 1):
        assert line.startswith(f"insight: quantization: candidate {number} of 4, {method} (")
    assert said[-1].startswith("insight: quantization: speed of 5 models (")
    report = json.loads((workplace / "best" / "report.json").read_text())
    assert report["reason"] in outcome.out
    assert (workplace / "best" / "weights.pt").exists() == (report["chosen"] != "original")


@pytest.mark.parametrize("is_left_alone", [True, False])
def test_only_a_model_that_was_written_is_named_in_the_next_command(
    insight: Insight, monkeypatch: pytest.MonkeyPatch, is_left_alone: bool
) -> None:
    original = Candidate(
        "original", "none", False, disk_bytes=1000, bits_per_byte=2.0, tokens_per_second=10.0
    )
    model: Any = None if is_left_alone else object()
    result = SearchResult((original,), "original", "leave the model alone", model, 0.005, {}, {}, 1.0)

    @functools.wraps(quantize)  # the options are made of its signature
    def measured(**_: Any) -> SearchResult:
        return result

    monkeypatch.setattr("insight.cli.quantize.quantize", measured)
    outcome = insight("quantize", "--checkpoint", "run", "--output", "small")
    assert outcome.code == 0, outcome.err
    assert ("insight benchmark run small" in outcome.out) != is_left_alone
    assert "small" in outcome.out.splitlines()[-1]


@pytest.mark.parametrize("command", ["generate", "validate", "benchmark", "redteam run"])
def test_a_folder_that_holds_only_the_measurements_is_named_as_such(
    insight: Insight, workplace: Path, command: str
) -> None:
    (workplace / "small").mkdir()
    (workplace / "small" / "report.json").write_text("{}")
    option = "" if command == "benchmark" else "--checkpoint"
    outcome = insight(*command.split(), *option.split(), "small")
    assert outcome.code == 2
    assert "small: holds only the report of insight quantize" in outcome.error_line


@pytest.mark.slow
def test_maps_that_the_group_size_leaves_are_told(
    insight: Insight, finished_run: Path, workplace: Path
) -> None:
    arguments = ("--output", "out", "--method", "int8_weight_only", *QUICK, "--group-size", "64")
    outcome = insight("quantize", "--checkpoint", str(finished_run), *arguments)
    assert outcome.code == 0, outcome.err
    kept = json.loads((workplace / "out" / "quantization.json").read_text())["report"]["modules_kept"]
    linear = [module for module in kept if module["is_linear"]]
    assert linear
    assert f"{len(linear)} of " in outcome.out
    assert "linear maps stay as they are (group_size=64 does not divide its" in outcome.out


def test_a_model_whose_perplexity_is_no_number_is_measured(
    insight: Insight, artifact: Path, workplace: Path
) -> None:
    shutil.copytree(artifact, workplace / "huge")
    weights = torch.load(workplace / "huge" / "weights.pt", weights_only=True)
    weights["norm.weight"] *= 1e6
    torch.save(weights, workplace / "huge" / "weights.pt")
    described = json.loads((workplace / "huge" / "quantization.json").read_text())
    described["weights_hash"] = _hash(workplace / "huge" / "weights.pt")
    (workplace / "huge" / "quantization.json").write_text(json.dumps(described))
    outcome = insight("validate", "--checkpoint", "huge")
    assert outcome.code == 0, outcome.err
    assert "perplexity" in outcome.out
    assert "inf" in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "int8_dinamic"), "did you mean 'int8_dynamic'?"),
        (("--method", "int8_static", "--group-size", "8"), "int8_static has no groups"),
        (("--method", "int8_weight_only", "--group-size", "7"), "would quantize nothing"),
        (("--max-quality-loss", "-1"), "max_quality_loss=-1.0"),
        (("--seconds", "0"), "seconds=0.0"),
        (("--compile", "maybe"), "choose one of auto, on, off"),
        (("--checkpoint", "nowhere"), "does not exist"),
        (("--outputs", "x"), "did you mean '--output'?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    insight: Insight, finished_run: Path, workplace: Path, options: tuple[str, ...], message: str
) -> None:
    before = sorted(workplace.iterdir())
    arguments = ("--checkpoint", str(finished_run), "--output", "out", "--compile", "off", *options)
    outcome = insight("quantize", *arguments)
    assert outcome.code == 2
    assert message in outcome.error_line
    assert sorted(workplace.iterdir()) == before


def test_an_output_folder_that_exists(insight: Insight, finished_run: Path, workplace: Path) -> None:
    (workplace / "out").mkdir()
    outcome = insight("quantize", "--checkpoint", str(finished_run), "--output", "out")
    assert outcome.code == 2
    assert "--output=out: exists already" in outcome.error_line
    assert list((workplace / "out").iterdir()) == []


def test_quantizing_twice(insight: Insight, artifact: Path, workplace: Path) -> None:
    outcome = insight("quantize", "--checkpoint", str(artifact), "--output", "out")
    assert outcome.code == 2
    assert "quantized already (int8_weight_only)" in outcome.error_line
    assert not (workplace / "out").exists()


def test_a_checkpoint_with_nan(insight: Insight, finished_run: Path, workplace: Path) -> None:
    run = workplace / "runs" / "tiny" / "1"
    shutil.copytree(finished_run, run)
    path = run / "checkpoints" / "best.ckpt"
    contents = torch.load(path, weights_only=True)
    contents["state_dict"]["network.norm.weight"][0] = float("nan")
    torch.save(contents, path)
    outcome = insight("quantize", "--checkpoint", str(run), "--output", "out")
    assert outcome.code == 2
    assert "norm.weight holds NaN or infinity" in outcome.error_line
    assert not (workplace / "out").exists()


@pytest.mark.slow
def test_no_compiler(
    insight: Insight, finished_run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    arguments = ("quantize", "--checkpoint", str(finished_run), "--output", "out", "--method", "bf16")
    outcome = insight(*arguments, "--compile", "on")
    assert outcome.code == 2
    assert "no C++ compiler" in outcome.error_line
    assert not (workplace / "out").exists()
    assert insight(*arguments, "--seconds", "1", "--max-quality-loss", "0.5").code == 0


@pytest.mark.slow
def test_a_loss_beyond_the_bound(insight: Insight, finished_run: Path, workplace: Path) -> None:
    outcome = insight(
        *("quantize", "--checkpoint", str(finished_run), "--output", "out", "--method", "int8_dynamic"),
        *("--compile", "off", "--seconds", "1", "--max-quality-loss", "0"),
    )
    assert outcome.code == 1
    assert "max_quality_loss=0.0: int8_dynamic writes" in outcome.error_line
    assert not (workplace / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--resume", "--init_from"])
def test_a_quantized_model_is_not_trained(
    insight: Insight, artifact: Path, workplace: Path, option: str
) -> None:
    outcome = insight("fit", "--config", "tiny.yaml", option, str(artifact))
    assert outcome.code == 2
    assert "is a quantized model, which cannot be trained" in outcome.error_line
