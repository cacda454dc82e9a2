"""From a YAML file to a run folder: what a run leaves, how it goes on, and how it ends early."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import Outcome, run_insight, write_tiny

from insight.reporting import read_metrics, read_samples, read_summary

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml")
# Dropout makes the losses depend on the random state; a constant rate makes them independent of the length.
EXACT = (
    "--model.network.dropout=0.2",
    "--model.schedule=Constant",
    "--trainer.val_check_interval=3",
)


def test_a_run_leaves_everything(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert {
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "report.html",
        "run.json",
        "samples.jsonl",
        "summary.json",
        "tokenizer.json",
    } <= names
    assert {path.name for path in (finished_run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    summary = read_summary(finished_run)
    assert {"test/bits_per_byte", "test/loss", "validation/bits_per_byte"} <= summary.keys()
    assert read_samples(finished_run)[-1].prompt == "It is"
    steps = [record["step"] for record in read_metrics(finished_run) if "train/loss" in record]
    assert len(steps) == 4


@pytest.mark.slow
def test_the_saved_configuration_runs_again(insight: Insight, workplace: Path) -> None:
    assert insight(*FIT).code == 0
    saved = workplace / "runs/tiny/1/config.yaml"
    config = yaml.safe_load(saved.read_text(encoding="utf-8"))
    assert config["trainer"]["precision"] == "32-true"
    assert config["model"]["init_args"]["network"]["init_args"]["attention"]["init_args"]["num_heads"] == 2
    again = insight("fit", "--config", str(saved))
    assert again.code == 0, again.err
    assert (workplace / "runs/tiny/2/config.yaml").read_text(encoding="utf-8") == saved.read_text(
        encoding="utf-8"
    )


@pytest.mark.slow
def test_the_last_line_says_where_the_report_is_and_how_to_go_on(insight: Insight, workplace: Path) -> None:
    outcome = insight(*FIT)
    last = outcome.out.splitlines()[-1]
    assert Path(last.split()[0]).is_file()
    assert "insight generate --checkpoint runs/tiny/1 'It is'" in last


@pytest.mark.slow
def test_choices_are_said(insight: Insight, workplace: Path) -> None:
    err = insight(*FIT, "--trainer.precision=null", "--run.num_threads=null").err
    assert "insight: machine: " in err
    assert "precision " in err
    (said,) = [line for line in err.splitlines() if line.startswith("insight: attention: ")]
    record = json.loads((workplace / "runs/tiny/1/run.json").read_text(encoding="utf-8"))
    assert said.removeprefix("insight: attention: ") == "; ".join(record["kernels"])
    saved = yaml.safe_load((workplace / "runs/tiny/1/config.yaml").read_text(encoding="utf-8"))
    assert saved["trainer"]["precision"] in ("32-true", "bf16-mixed")
    assert saved["run"]["num_threads"] >= 1


@pytest.mark.slow
def test_own_text_without_validation_files(insight: Insight, workplace: Path) -> None:
    (workplace / "my").mkdir()
    for index in range(6):
        (workplace / f"my/{index}.txt").write_text(
            f"Text {index}. " + "A word or two. " * 30, encoding="utf-8"
        )
    outcome = insight(
        *FIT, "--data.train_files=my/*.txt", "--data.validation_files=null", "--data.validation_fraction=0.2"
    )
    assert outcome.code == 0, outcome.err
    assert "no validation_files: validating on" in outcome.err


@pytest.mark.slow
def test_a_second_start_finds_the_cache(insight: Insight, workplace: Path) -> None:
    (workplace / "train.txt").write_text("Some text that no other test has. " * 40, encoding="utf-8")
    assert "encoded train.txt" in insight(*FIT).err
    assert "encoded train.txt" not in insight(*FIT).err


@pytest.mark.slow
def test_runs_are_never_overwritten(insight: Insight, workplace: Path) -> None:
    for _ in range(2):
        assert insight(*FIT).code == 0
    assert sorted(path.name for path in (workplace / "runs/tiny").iterdir()) == ["1", "2"]


def _losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["train/loss"] for record in read_metrics(run) if "train/loss" in record}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """A folder with the runs of 12 steps and of 5."""
    folder = tmp_path_factory.mktemp("trained")
    write_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number in (12, 5):
            assert run_insight(*FIT, *EXACT, f"--trainer.max_steps={number}").code == 0
    return folder


@pytest.mark.slow
def test_resuming_is_exact(insight: Insight, workplace: Path, trained: Path) -> None:
    shutil.copytree(trained / "runs", workplace / "runs")
    outcome = insight("fit", "--resume", "runs/tiny/2", "--trainer.max_steps=12")
    assert outcome.code == 0, outcome.err
    assert "differs from the saved configuration: trainer.max_steps=12 (saved: 5)" in outcome.err
    assert _losses(workplace / "runs/tiny/2") == _losses(workplace / "runs/tiny/1")
    weights = [
        torch.load(workplace / f"runs/tiny/{n}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for n in (1, 2)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_resuming_with_a_lost_random_state_is_noticed(
    insight: Insight, workplace: Path, trained: Path
) -> None:
    """The twin of the test above: with this fault planted, the losses must differ."""
    shutil.copytree(trained / "runs", workplace / "runs")
    path = workplace / "runs/tiny/2/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["insight"]["random_states"][0]["torch"] = torch.Generator().manual_seed(99).get_state()
    torch.save(checkpoint, path)
    assert insight("fit", "--resume", "runs/tiny/2", "--trainer.max_steps=12").code == 0
    resumed, whole = _losses(workplace / "runs/tiny/2"), _losses(workplace / "runs/tiny/1")
    assert resumed.keys() == whole.keys()
    assert resumed != whole


@pytest.mark.slow
def test_resume_auto_goes_on_with_the_newest_run(insight: Insight, workplace: Path) -> None:
    assert insight(*FIT, *EXACT).code == 0
    outcome = insight(*FIT, *EXACT, "--resume", "auto", "--trainer.max_steps=6")
    assert outcome.code == 0, outcome.err
    assert "resuming runs/tiny/1/checkpoints/last.ckpt" in outcome.err
    assert max(_losses(workplace / "runs/tiny/1")) >= 5
    assert not (workplace / "runs/tiny/2").exists()


@pytest.mark.slow
def test_initial_weights_begin_a_new_run(insight: Insight, workplace: Path, finished_run: Path) -> None:
    outcome = insight(*FIT, "--init_from", str(finished_run), "--trainer.max_steps=2")
    assert outcome.code == 0, outcome.err
    assert f"initial weights: {finished_run}" in outcome.err
    fresh = insight(*FIT, "--trainer.max_steps=2")
    assert fresh.code == 0
    first, second = (_losses(workplace / f"runs/tiny/{n}") for n in (1, 2))
    assert first[min(first)] < second[min(second)]


@pytest.mark.slow
def test_tensorboard_can_be_turned_off(insight: Insight, workplace: Path) -> None:
    assert insight(*FIT, "--trainer.logger=false").code == 0
    assert not list((workplace / "runs/tiny/1").glob("events*"))
    assert (workplace / "runs/tiny/1/metrics.jsonl").is_file()


@pytest.mark.slow
def test_time_budget_from_the_environment(
    insight: Insight, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIGHT_TIME_BUDGET", "soon")
    outcome = insight(*FIT, "--run.time_budget=150")
    assert outcome.code == 2
    assert "INSIGHT_TIME_BUDGET=soon" in outcome.error_line
    monkeypatch.setenv("INSIGHT_TIME_BUDGET", "100000")
    assert (
        "time budget: 100000 s from INSIGHT_TIME_BUDGET"
        in insight(*FIT, "--run.time_budget=150", "--model.compile=off").err
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_runs_stop_cleanly_and_go_on(workplace: Path, number: signal.Signals, code: int) -> None:
    command = [
        sys.executable,
        "-m",
        "insight",
        *FIT,
        "--trainer.max_steps=1000000",
        "--model.schedule=Constant",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    last = workplace / "runs/tiny/1/checkpoints/last.ckpt"
    _wait_for(last.is_file, process)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].endswith("go on with: insight fit --resume runs/tiny/1")
    step = torch.load(last, weights_only=True)["global_step"]
    done = run_insight("fit", "--resume", "runs/tiny/1", f"--trainer.max_steps={step + 3}")
    assert done.code == 0, done.err
    assert torch.load(last, weights_only=True)["global_step"] == step + 3


def test_full_disk_before_training(
    insight: Insight, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("insight.runtime.files.shutil.disk_usage", lambda path: full)
    outcome = insight(*FIT)
    assert outcome.code == 2
    assert "runs" in outcome.error_line
    assert "free some space" in outcome.error_line
    assert not (workplace / "runs").exists()


@pytest.mark.slow
def test_validate_and_test_need_only_the_run(insight: Insight, finished_run: Path) -> None:
    before = read_summary(finished_run)["test/bits_per_byte"].value
    outcome = insight("test", "--checkpoint", str(finished_run), "--json=true")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["test/bits_per_byte"] == pytest.approx(before, rel=1e-5)
    outcome = insight("validate", "--checkpoint", str(finished_run / "checkpoints/last.ckpt"))
    assert outcome.code == 0, outcome.err
    assert "validation/bits_per_byte" in outcome.out


def test_testing_on_other_text_leaves_the_record_alone(
    insight: Insight, workplace: Path, finished_run: Path
) -> None:
    record = (finished_run / "summary.json").read_bytes()
    outcome = insight("test", "--checkpoint", str(finished_run), "--data.test_files", "validation.txt")
    assert outcome.code == 0, outcome.err
    assert (finished_run / "summary.json").read_bytes() == record


def test_generate(insight: Insight, finished_run: Path) -> None:
    command = ("generate", "--checkpoint", str(finished_run), "It is", "--max_new_tokens", "12")
    first = insight(*command, "--seed", "1")
    assert first.code == 0, first.err
    assert first.out.startswith("It is")
    assert insight(*command, "--seed", "1").out == first.out
    assert insight(*command, "--seed", "2").out != first.out
    as_json = json.loads(insight(*command, "--seed", "1", "--json").out)
    assert as_json["prompt"] + as_json["text"] + "\n" == first.out


def test_generate_searches(insight: Insight, finished_run: Path) -> None:
    command = ("generate", "--checkpoint", str(finished_run), "It is", "--max_new_tokens", "6")
    search = (*command, "--num_beams", "3", "--no_repeat_ngram", "2", "--must_not_contain", "e")
    plain = insight(*search)
    assert plain.code == 0, plain.err
    signature = "beam:3|score:sum/L^1|end:yes|stop:exact|norepeat:2|max:6|without:1"
    assert f"decoding: {signature}" in plain.err
    record = json.loads(insight(*search, "--n_best", "2", "--json").out)
    assert f"It is{record['text']}\n" == plain.out
    assert record["decoding"] == signature
    assert record["hypotheses"][0]["text"] == record["text"]
    assert record["hypotheses"][0]["score"] >= record["hypotheses"][1]["score"]
    drawn = json.loads(insight(*command, "--n_best", "2", "--seed", "1", "--json").out)
    assert drawn["decoding"].startswith("samples:2|")
    found = insight(*command, "--num_beams", "8", "--must_contain", "It", "--length_rule", "gnmt")
    assert " It" in found.out
    for options, said in (
        (("--num_beams", "2", "--n_best", "2"), "n_best=2: needs JSON"),
        (("--num_beams", "2", "--temperature", "1"), "temperature=1.0: belongs to drawing at random"),
        (("--must_contain", "a"), "must_contain=('a',): belongs to a search: add num_beams=5"),
    ):
        assert said in insight(*command, *options).error_line


@pytest.mark.slow
def test_predict_tells_documents_apart(insight: Insight, workplace: Path, finished_run: Path) -> None:
    texts = ["A first document.", "", "Another one, which is longer than the first.", ""]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (workplace / "texts.jsonl").write_text(lines, encoding="utf-8")
    command = ("predict", "--checkpoint", str(finished_run), "--data.predict_files", "texts.jsonl")
    outcome = insight(*command)
    assert outcome.code == 0, outcome.err
    records = [json.loads(line) for line in outcome.out.splitlines()]
    assert [record["bytes"] for record in records] == [len(text) for text in texts]
    assert [record["tokens"] for record in records] == [len(text) + 1 if text else 0 for text in texts]
    # A record without text has no scores, and the others keep their numbers.
    assert [(record["file"], record["record"]) for record in records] == [
        ("texts.jsonl", number) for number in (1, 2, 3, 4)
    ]
    assert [record["document"] for record in records] == [0, 1, 2, 3]
    assert [record["loss"] is None for record in records] == [not text for text in texts]
    # Together they are what `test` measures on the same text.
    test = insight(
        "test", "--checkpoint", str(finished_run), "--data.test_files", "texts.jsonl", "--json=true"
    )
    total = sum(record["loss"] * record["tokens"] for record in records if record["tokens"])
    expected = json.loads(test.out)["test/loss"]
    assert total / sum(record["tokens"] for record in records) == pytest.approx(expected, rel=1e-5)
    assert insight(*command, "--output", "out.jsonl").code == 0
    assert (workplace / "out.jsonl").read_text(encoding="utf-8") == outcome.out
    assert "exists already" in insight(*command, "--output", "out.jsonl").error_line


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("odd"), KeyboardInterrupt()])
def test_a_start_that_fails_leaves_no_folder(
    insight: Insight, workplace: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", fail)
    assert insight(*FIT).code in (1, 130)
    assert not (workplace / "runs").exists()
