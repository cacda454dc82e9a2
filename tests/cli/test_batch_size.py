"""``--data.batch_size auto``: the greatest that fits, and the same run as with that number."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import SENTENCES, Outcome
from lightning.pytorch import Callback

from insight.api import batch_size as searching
from insight.api.batch_size import AgreedBatchSize, largest_that_fits
from insight.api.estimate import estimate_network
from insight.data import ByteTokenizerConfig, LanguageModelingDataModule
from insight.models import DecoderConfig, GroupedQueryAttention
from insight.runtime.errors import ConfigError
from insight.training import MuonAdamW

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml", "--run.test=false", "--trainer.max_steps=2")
BUDGET = 5_000_000


@pytest.fixture
def long_text(workplace: Path) -> Path:
    """Enough for thousands of samples, so that memory is what limits the batch."""
    text = "".join(f"{index}. {SENTENCES}\n" for index in range(2000))
    (workplace / "train.txt").write_text(text, encoding="utf-8")
    return workplace


def found(workplace: Path, run: int = 1) -> int:
    config = yaml.safe_load((workplace / f"runs/tiny/{run}/config.yaml").read_text())
    size = config["data"]["init_args"]["batch_size"]
    assert isinstance(size, int)
    return size


def training_bytes(size: int) -> int:
    attention = GroupedQueryAttention(num_heads=2, num_key_value_heads=1)
    network = DecoderConfig(16, 1, attention=attention, max_sequence_length=32)
    return int(estimate_network(network, 257, size, 16, "32-true", MuonAdamW())["peak_bytes"])


@pytest.mark.slow
def test_it_finds_the_most_that_fits_and_keeps_the_number(
    insight: Insight, long_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a budget beside what this process holds, which is not the tests' business."""
    monkeypatch.setattr(searching, "resident_bytes", lambda: 0)
    monkeypatch.setattr(searching, "usable_memory_bytes", lambda: int(BUDGET / 0.8))
    outcome = insight(*FIT, "--data.batch_size=auto")
    assert outcome.code == 0, outcome.err
    size = found(long_text)
    assert f"data.batch_size: {size} on each process, the most that fits into memory" in outcome.err
    assert training_bytes(size) <= BUDGET
    assert training_bytes(size + size // 4 + 1) > BUDGET
    assert size > 8
    # The run is that of somebody who gave the number: trying leaves no trace in the random numbers.
    assert insight(*FIT, f"--data.batch_size={size}").code == 0
    weights = [
        torch.load(long_text / f"runs/tiny/{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (1, 2)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    # Going on keeps the number, whatever fits by now.
    monkeypatch.setattr(searching, "usable_memory_bytes", lambda: BUDGET // 3)
    more = ("--data.batch_size=auto", "--trainer.max_steps=3", "--resume=runs/tiny/1")
    outcome = insight(*FIT[:3], "--run.test=false", *more)
    assert outcome.code == 0, outcome.err
    assert found(long_text) == size


@pytest.mark.slow
def test_a_smaller_budget_gives_a_smaller_batch(
    insight: Insight, long_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that looks at no memory would be noticed."""
    monkeypatch.setattr(searching, "resident_bytes", lambda: 0)
    monkeypatch.setattr(searching, "usable_memory_bytes", lambda: BUDGET // 4)
    assert insight(*FIT, "--data.batch_size=auto").code == 0
    assert training_bytes(found(long_text)) <= BUDGET // 4
    monkeypatch.setattr(searching, "usable_memory_bytes", lambda: 1000)
    outcome = insight(*FIT, "--data.batch_size=auto")
    assert outcome.code == 2
    assert "not even one sequence fits" in outcome.error_line


def test_short_text_limits_it_and_check_says_so(insight: Insight, workplace: Path) -> None:
    """An epoch keeps a hundred steps where it can, and one sample a step where it cannot."""
    outcome = insight("check", "--config", "tiny.yaml", "--data.batch_size=auto")
    assert outcome.code == 0, outcome.err
    assert "data.batch_size: 1 on each process" in outcome.err


def test_nothing_else_chooses(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(SENTENCES * 9)
    data = LanguageModelingDataModule(
        str(tmp_path / "train.txt"),
        tokenizer=ByteTokenizerConfig(),
        sequence_length=16,
        batch_size="auto",
        cache_dir=str(tmp_path / "cache"),
    )
    data.setup("fit")
    with pytest.raises(ConfigError) as error:
        data.train_dataloader()
    assert (error.value.option, error.value.value) == ("batch_size", "auto")
    data.use_batch_size(3)
    assert next(iter(data.train_dataloader())).input_ids.shape == (3, 16)
    assert data.validation_batch_size == 3


@pytest.mark.parametrize("most", [1, 2, 3, 5, 16, 23, 1000])
def test_the_search_is_that_of_trying_every_size(most: int) -> None:
    tried: list[int] = []
    sizes = [1, 2, 3, 4, 5, 6, 7, *(base * step // 4 for base in (8, 16, 32, 64) for step in (4, 5, 6, 7))]
    for limit in range(1, 100):

        def fits(size: int, limit: int = limit) -> bool:
            tried.append(size)
            return size <= limit

        expected = max(size for size in sizes if size <= min(limit, most))
        assert largest_that_fits(fits, most) == expected
    assert max(tried) <= max(1, most)
    with pytest.raises(ConfigError) as error:
        largest_that_fits(lambda size: False, most)
    assert (error.value.option, error.value.value) == ("data.batch_size", "auto")


def train_with_own_size(folder: Path, agrees: bool) -> None:
    """One of two processes: the first has room for batches of 6, the second for batches of 4."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    from tiny_training import make_data, make_module, make_trainer

    rank = int(os.environ.get("LOCAL_RANK", "0"))
    data = make_data(folder, batch_size="auto")
    data.use_batch_size((6, 4)[rank])
    own = types.SimpleNamespace(
        datamodule=data,
        config=types.SimpleNamespace(data=types.SimpleNamespace(init_args=types.SimpleNamespace())),
        saved_config=lambda: f"batch_size: {data.batch_size}",
    )
    sizes: list[int] = []

    class Sizes(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            sizes.append(len(batch.input_ids))

    callbacks = [AgreedBatchSize(own), Sizes()] if agrees else [Sizes()]  # type: ignore[arg-type]
    make_trainer(folder, 2, callbacks=callbacks, devices=2, strategy="ddp").fit(make_module(), data)
    (folder / f"{rank}.txt").write_text(str(sizes))


@pytest.mark.slow
def test_processes_take_the_smallest(tmp_path: Path) -> None:
    """Where nobody asks the others, which is the planted fault, each keeps its own."""
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, expected in (("agree", ["[4, 4]", "[4, 4]"]), ("each its own", ["[6, 6]", "[4, 4]"])):
        assert [(tmp_path / name / f"{rank}.txt").read_text() for rank in (0, 1)] == expected
        assert (tmp_path / name / "config.yaml").is_file() is (name == "agree")


if __name__ == "__main__":
    for place in (Path(sys.argv[1]) / "agree", Path(sys.argv[1]) / "each its own"):
        place.mkdir(exist_ok=True)
        train_with_own_size(place, agrees=place.name == "agree")
