"""TensorBoard reads back what was logged, from event files in the run folder itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from insight.reporting import RunTensorBoard, Sample
from insight.reporting.tensorboard import flatten_options


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


def test_resumed_run_forgets_the_lost_steps(tmp_path: Path) -> None:
    first = RunTensorBoard(tmp_path)
    for step in range(10):
        first.log_metrics({"train/loss": 1.0}, step)
    first.finalize("failed")
    second = RunTensorBoard(tmp_path)
    for step in range(6, 9):
        second.log_metrics({"train/loss": 2.0}, step)
    second.finalize("success")
    assert scalar_steps(tmp_path, "train/loss") == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8]


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
