"""The examples of docs/callbacks.md: a package of the user's own, named in a YAML file and nowhere else."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import TINY, Outcome, run_insight, write_tiny
from lightning.pytorch import Callback

import insight.callbacks
from insight.checkpoints import load_checkpoint
from insight.data import ByteTokenizerConfig, LanguageModelingDataModule
from insight.reporting import read_metrics

PAGE = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL)
SOURCES = {text.split("\n", 1)[0].removeprefix("# "): text for kind, text in BLOCKS if kind == "python"}
SETTINGS = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]


def write_package(folder: Path, sources: dict[str, str] = SOURCES) -> None:
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        (path.parent / "__init__.py").touch()


def own_config() -> str:
    """The tiny configuration with what every example of the page sets."""
    config = yaml.safe_load(TINY)
    for settings in SETTINGS:
        config["model"] |= settings.get("model", {})
        config["trainer"]["callbacks"] += settings.get("trainer", {}).get("callbacks", [])
    return yaml.safe_dump(config)


def values(run: Path, name: str) -> list[float]:
    return [record[name] for record in read_metrics(run) if name in record]


def top_three(run: Path) -> float:
    """How often the true token is among the three likeliest, of the newest checkpoint, computed here."""
    data = LanguageModelingDataModule(
        str(run.parents[2] / "train.txt"), str(run.parents[2] / "validation.txt"),
        tokenizer=ByteTokenizerConfig(), sequence_length=16, batch_size=4, cache_dir=str(run / "cache"),
    )  # fmt: skip
    data.setup("fit")
    network: Any = load_checkpoint(run / "checkpoints/last.ckpt").network.eval()
    hits, count = 0, 0
    with torch.no_grad():
        for batch in data.val_dataloader():
            scores = network.logits(network(batch.input_ids, document_ids=batch.document_ids))
            for row, targets in zip(scores, batch.targets, strict=True):
                for score, target in zip(row, targets, strict=True):
                    if target != -100:
                        hits += int((score > score[target]).sum() < 3)
                        count += 1
    assert count > 100
    return hits / count


def test_every_example_is_short() -> None:
    assert len(SOURCES) == len(SETTINGS) == 4
    for (_, source), settings in zip(SOURCES.items(), SETTINGS, strict=True):
        assert len(source.splitlines()) + len(yaml.safe_dump(settings).splitlines()) < 45


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The folder of a run that a process of its own made, with the package on its path and nowhere else."""
    folder = tmp_path_factory.mktemp("own")
    write_tiny(folder)
    (folder / "packages").mkdir()
    write_package(folder / "packages")
    (folder / "own.yaml").write_text(own_config(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "insight", "fit", "--config", "own.yaml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "packages"), "INSIGHT_CACHE_DIR": str(cache_folder)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "tiny" / "1"


@pytest.mark.slow
def test_the_callback_counts(own_run: Path) -> None:
    assert values(own_run, "train/tokens_seen") == [64.0, 128.0, 192.0, 256.0]


@pytest.mark.slow
def test_the_metric_is_what_it_says(own_run: Path) -> None:
    logged = values(own_run, "validation/top_3")
    assert len(logged) == 2
    assert logged[-1] == pytest.approx(top_three(own_run), abs=1e-6)
    assert "validation/top_3" in (own_run / "summary.json").read_text()


@pytest.mark.slow
def test_the_schedule_restarts(own_run: Path) -> None:
    expected = [0.002 * factor for factor in (1.0, 0.853553, 0.5, 0.146447)]
    assert values(own_run, "train/learning_rate") == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_optimizer_trained(own_run: Path) -> None:
    checkpoint = torch.load(own_run / "checkpoints/last.ckpt", weights_only=True)
    state = checkpoint["optimizer_states"][0]["state"]
    assert len(state) == len(checkpoint["state_dict"])
    assert all(set(entry) == {"mean"} for entry in state.values())
    assert any(bool(entry["mean"].any()) for entry in state.values())


@pytest.mark.slow
def test_resuming_counts_on_and_a_wrong_metric_would_be_noticed(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_run.parents[2]
    monkeypatch.chdir(folder)
    wrong = SOURCES["my_package/metrics.py"].replace("topk(self.k)", "topk(self.k + 1)")
    assert wrong != SOURCES["my_package/metrics.py"]
    write_package(folder, SOURCES | {"my_package/metrics.py": wrong})
    monkeypatch.syspath_prepend(folder)
    done = run_insight(
        "fit", "--resume", "runs/tiny/1", "--trainer.max_steps", "6", "--allow_package", "my_package"
    )
    assert done.code == 0, done.err
    assert values(own_run, "train/tokens_seen") == [64.0, 128.0, 192.0, 256.0, 320.0, 384.0]
    assert values(own_run, "validation/top_3")[-1] != pytest.approx(top_three(own_run), abs=1e-6)


def test_a_misspelt_part_is_one_line(insight: Callable[..., Outcome], workplace: Path) -> None:
    outcome = insight("fit", "--config", "tiny.yaml", "--model.schedule", "my_package.schedules.Restart")
    assert outcome.code == 2
    assert "my_package" in outcome.error_line
    assert not (workplace / "runs").exists()


def test_the_table_names_every_callback_and_all_its_options() -> None:
    rows = dict(re.findall(r"^\| `(\w+)`[ ●]* \|(.*)\|$", PAGE, re.MULTILINE))
    callbacks = {
        name: cls
        for name in vars(insight.callbacks)
        if inspect.isclass(cls := getattr(insight.callbacks, name)) and issubclass(cls, Callback)
    }
    assert set(rows) == set(callbacks)
    for name, row in rows.items():
        options = re.findall(r"`(\w+)`", row.rsplit("|", 1)[1])
        parameters = set(inspect.signature(callbacks[name]).parameters)
        assert set(options) == parameters, name
