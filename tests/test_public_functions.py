"""What ``import insight`` offers, and that it costs nothing until it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import insight


def test_every_public_name_exists() -> None:
    for name in insight.__all__:
        assert callable(getattr(insight, name)), name
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        insight.fitt  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    script = "import insight, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.slow
def test_fit_and_generate_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("Some text to learn from, again and again. " * 50, encoding="utf-8")
    Path("config.yaml").write_text(
        "data: {train_files: train.txt, tokenizer: ByteTokenizerConfig, sequence_length: 16, batch_size: 2,"
        " validation_fraction: 0.1}\n"
        "model: {network: {hidden_size: 16, num_layers: 1}}\n",
        encoding="utf-8",
    )
    options = {
        "trainer.max_steps": 2,
        "trainer.log_every_n_steps": 1,
        "trainer.precision": "32-true",
        "run.num_threads": 1,
    }
    run = insight.fit("config.yaml", options)
    assert run == insight.RunFolder(Path("runs/run/1"))
    assert run.report_path.is_file()
    loaded = insight.load_checkpoint(insight.find_checkpoint("runs/run/1"))
    settings = insight.GenerationSettings(max_new_tokens=3)
    assert len(insight.generate(loaded.network, loaded.tokenizer, "Some", settings).token_ids) <= 3
    assert insight.read_metrics(run.metrics_path)


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("insight.interchange", "LoadedCheckpoint"),
        ("insight.interchange", "differing_tensors"),
        ("insight.interchange", "load_checkpoint"),
        ("insight.interchange", "load_weights_into"),
        ("insight.optimization", "ModelOptimizer"),
        ("insight.optimization", "load_artifact"),
        ("insight.optimization", "load_model"),
    ],
)
def test_a_name_that_has_moved_says_where(package: str, name: str) -> None:
    with pytest.raises(AttributeError, match=f"{package}.{name} has moved: use (.*)") as error:
        getattr(importlib.import_module(package), name)
    module, _, attribute = str(error.value).rpartition(" ")[2].rpartition(".")
    assert getattr(importlib.import_module(module), attribute)
