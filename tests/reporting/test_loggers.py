"""The logger: every record reaches the file, and a resumed run leaves no step twice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.summary.writer import event_file_writer

from insight.reporting import MetricsFile, RunTensorBoard, Sample, read_metrics
from insight.reporting import loggers as metrics_file_module
from insight.reporting.loggers import flatten_options


def records(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_record_is_in_the_file_at_once(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path / "run" / "metrics.jsonl")
    logger.log_metrics({"train/loss": 3.5, "epoch": 0}, step=0)
    logger.log_metrics({"train/loss": math.nan}, step=1)
    lines = records(tmp_path / "run" / "metrics.jsonl")  # not closed, not flushed by us
    assert [line["step"] for line in lines] == [0, 1]
    assert lines[0]["train/loss"] == 3.5
    assert lines[1]["train/loss"] is None
    assert 0 <= lines[0]["seconds"] <= lines[1]["seconds"]


def test_finalize_closes_and_a_later_record_opens_again(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": 1.0}, step=5)
    logger.finalize("success")
    logger.log_metrics({"test/loss": 2.0}, step=5)
    logger.finalize("success")
    assert len(records(logger.path)) == 2


def interrupted_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained to step 9 in ten seconds, killed in the middle of a line."""
    clock = [100.0]
    monkeypatch.setattr(metrics_file_module.time, "monotonic", lambda: clock[0])
    logger = MetricsFile(path)
    for step in range(10):
        clock[0] += 1
        logger.log_metrics({"train/loss": 10.0 - step}, step)
        if step in (3, 7):
            logger.log_metrics({"validation/loss": 9.0 - step}, step)
    logger.finalize("failed")
    with path.open("a") as file:
        file.write('{"step": 10, "tra')


def test_resumed_run_drops_later_records_and_the_clock_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    interrupted_run(path, monkeypatch)
    clock = [5000.0]
    monkeypatch.setattr(metrics_file_module.time, "monotonic", lambda: clock[0])
    logger = MetricsFile(path)
    for step in range(6, 12):  # restored the checkpoint after step 5
        clock[0] += 1
        logger.log_metrics({"train/loss": 100.0 + step}, step)
    metrics = read_metrics(path)
    assert [record["step"] for record in metrics] == list(range(12))
    assert [record["train/loss"] for record in metrics] == [10, 9, 8, 7, 6, 5, 106, 107, 108, 109, 110, 111]
    assert "validation/loss" in metrics[3]
    assert "validation/loss" not in metrics[7]  # it belonged to the lost steps
    assert path.read_text().count('"step": 6,') == 1  # the first repeated step does not stand twice
    seconds = [record["seconds"] for record in metrics]
    assert seconds == sorted(seconds)
    assert seconds[6] < 20  # not the 4,900 seconds between the two processes


def test_first_record_of_a_resumed_run_may_be_a_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    interrupted_run(path, monkeypatch)
    logger = MetricsFile(path)
    logger.log_metrics({"validation/loss": 50.0}, step=5)
    logger.log_metrics({"train/loss": 60.0}, step=6)
    metrics = read_metrics(path)
    assert [record["step"] for record in metrics] == list(range(7))
    assert metrics[5]["validation/loss"] == 50.0


def test_testing_and_validating_never_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    interrupted_run(path, monkeypatch)
    logger = MetricsFile(path)
    logger.log_metrics({"test/loss": 2.0}, step=0)
    logger.log_metrics({"validation/loss": 2.0}, step=0)
    assert len(read_metrics(path)) == 10


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = MetricsFile(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.begin_training(0)
    logger.finalize("success")
    assert not logger.path.exists()


def read_back(folder: Path) -> Any:
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def scalar_steps(folder: Path, tag: str) -> list[int]:
    """TensorBoard keeps what ``SummaryWriter`` writes as scalars or as tensors, depending on its version."""
    accumulator = read_back(folder)
    events = accumulator.Scalars(tag) if tag in accumulator.scalars.Keys() else accumulator.Tensors(tag)
    return [event.step for event in events]


def test_scalars_lie_in_the_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a $HOME name"
    logger = RunTensorBoard(folder)
    logger.log_hyperparams({"ignored": 1})
    logger.log_metrics({"train/loss": 3.0, "epoch": 0}, step=4)
    logger.finalize("success")
    assert [path.name.split(".")[0] for path in folder.iterdir()] == ["events"]
    assert scalar_steps(folder, "train/loss") == [4]
    assert "epoch" not in read_back(folder).Tags()["scalars"]


def test_resumed_run_forgets_the_lost_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Files of one second are read in the order of a number in their names, where 10 comes before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    first = RunTensorBoard(tmp_path)
    for step in range(10):
        first.log_metrics({"train/loss": 1.0}, step)
    first.finalize("failed")
    second = RunTensorBoard(tmp_path)
    for step in range(6, 9):
        second.log_metrics({"train/loss": 2.0}, step)
    second.finalize("success")
    assert scalar_steps(tmp_path, "train/loss") == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_samples_are_shown_verbatim(tmp_path: Path) -> None:
    logger = RunTensorBoard(tmp_path)
    logger.log_sample(Sample(7, "It\nis", "<script>alert(1)</script>\n# not a heading\n```\n\x1b[31m"))
    logger.finalize("success")
    (tag,) = read_back(tmp_path).Tags()["tensors"]
    assert tag == "samples/It is/text_summary"
    text = read_back(tmp_path).Tensors(tag)[0].tensor_proto.string_val[0].decode()
    assert all(line.startswith("    ") for line in text.split("\n"))
    assert "\x1b" not in text


@pytest.mark.slow
def test_a_sample_renders_as_inert_html(tmp_path: Path) -> None:
    from tensorboard.plugin_util import markdown_to_safe_html

    logger = RunTensorBoard(tmp_path)
    logger.log_sample(Sample(7, "x", "<img src=x onerror=alert(1)>\n</code></pre><script>alert(1)</script>"))
    logger.finalize("success")
    (tag,) = read_back(tmp_path).Tags()["tensors"]
    html = markdown_to_safe_html(read_back(tmp_path).Tensors(tag)[0].tensor_proto.string_val[0])
    assert "<img" not in html
    assert "<script" not in html
    assert "&lt;img" in html


def test_outcome_fills_the_hparams_tab(tmp_path: Path) -> None:
    logger = RunTensorBoard(tmp_path)
    logger.log_metrics({"validation/loss": 3.0}, step=10)
    logger.log_outcome(
        {"seed": 0, "model": {"layers": 4, "name": None}}, {"validation/loss": 3.0, "test/loss": 3.5}, 10
    )
    logger.finalize("success")
    accumulator = read_back(tmp_path)
    tags = accumulator.PluginTagToContent("hparams")
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(tags)
    start = plugin_data_pb2.HParamsPluginData.FromString(
        tags["_hparams_/session_start_info"]
    ).session_start_info
    assert {name: value.number_value for name, value in start.hparams.items()} == {
        "seed": 0,
        "model.layers": 4,
    }
    experiment = plugin_data_pb2.HParamsPluginData.FromString(tags["_hparams_/experiment"]).experiment
    assert {"validation/loss", "test/loss"} <= {info.name.tag for info in experiment.metric_infos}
    assert scalar_steps(tmp_path, "test/loss") == [10]


def test_metrics_of_a_later_test_get_their_column(tmp_path: Path) -> None:
    """TensorBoard reads the columns once: those of the test must be there when training ends."""
    logger = RunTensorBoard(tmp_path)
    logger.log_outcome({"seed": 0}, {"validation/bits_per_byte": 1.5}, 10)
    logger.finalize("success")
    later = RunTensorBoard(tmp_path)
    later.log_outcome({"seed": 0}, {"test/bits_per_byte": 1.6}, 10)
    later.finalize("success")
    content = read_back(tmp_path).PluginTagToContent("hparams")["_hparams_/experiment"]
    columns = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.metric_infos
    assert {"validation/bits_per_byte", "test/bits_per_byte"} <= {info.name.tag for info in columns}


def test_options_by_dotted_name() -> None:
    config = {
        "seed": 0,
        "model": {
            "network": {"class_path": "insight.models.DecoderConfig", "init_args": {"layers": 4, "cap": None}}
        },
        "files": ["a", "b"],
        "flag": True,
    }
    assert flatten_options(config) == {
        "seed": 0,
        "model.network": "DecoderConfig",
        "model.network.layers": 4,
        "files": "['a', 'b']",
        "flag": True,
    }
