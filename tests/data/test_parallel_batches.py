"""Batches of pairs: padding, ranks, the position that resumes a run, and workers."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint

from insight.data import ByteTokenizer, ByteTokenizerConfig, TranslationBatch, TranslationDataModule
from insight.data.pairs import BudgetBatches, EvaluationPairs, PairStores
from insight.data.sampling import IGNORED_TARGET, TokenBudgetOrder
from insight.runtime.errors import CheckpointError, ConfigError

NUM_PAIRS = 70
MOST_TOKENS = 64  # of a side, with the end-of-text id


def _pairs() -> list[tuple[str, str]]:
    """Different pairs of any length, one of them as long as can be."""
    draw = random.Random(0)
    texts = [
        (f"{number} x" + "a" * draw.randrange(25), f"{number} x" + "é" * draw.randrange(12))
        for number in range(69)
    ]
    return [*texts, ("69 " + "b" * 60, "69 " + "c" * 60)]


PAIRS = _pairs()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for name, kept in (("train", PAIRS), ("validation", PAIRS[:9])):
        rows = (json.dumps({"source": source, "target": target}) for source, target in kept)
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def module(folder: Path, **options: Any) -> TranslationDataModule:
    defaults = {"max_source_length": MOST_TOKENS, "max_target_length": MOST_TOKENS, "batch_tokens": 300}
    return TranslationDataModule(
        str(folder / "train.jsonl"),
        str(folder / "validation.jsonl"),
        tokenizer=ByteTokenizerConfig(),
        cache_dir=str(folder / "cache"),
        **{"pool_size": 32, **defaults, **options},
    )


@pytest.fixture(scope="module")
def stores(folder: Path) -> PairStores:
    data = module(folder)
    data.setup("fit")
    return data.pair_stores("train")


def numbers(batch: TranslationBatch) -> list[int]:
    """The numbers of the pairs of a batch, after everything in it was compared with their text."""
    end, decode, found = ByteTokenizer.end_of_text_id, ByteTokenizer().decode, []
    mask = (
        torch.ones_like(batch.source_ids, dtype=torch.bool)
        if batch.source_mask is None
        else batch.source_mask
    )
    assert mask.any(dim=0).all(), "no column is padding alone"
    for source, is_source, inputs, targets in zip(
        batch.source_ids, mask, batch.target_ids, batch.targets, strict=True
    ):
        length = int(is_source.sum())
        assert is_source[:length].all()
        assert source[length - 1] == end
        text = decode(source[: length - 1].numpy())
        valid = targets != IGNORED_TARGET
        if not valid.any():
            continue  # the pair of a rank for which none was left
        target = targets[valid]
        assert valid[: len(target)].all()
        assert target[-1] == end
        assert inputs[0] == end
        assert torch.equal(inputs[1 : len(target)], target[:-1])
        number = int(text.split()[0])
        assert (text, decode(target[:-1].numpy())) == PAIRS[number]
        found.append(number)
    assert batch.num_tokens == sum(
        sum(len(side.encode("utf-8")) + 1 for side in PAIRS[number]) for number in found
    )
    return found


def check_ranks(
    batches_of: Callable[[int], Iterable[TranslationBatch]], world_size: int, budget: int
) -> None:
    """Every rank has as many batches of the same global sizes, and all together each pair once.

    The budgets of all ranks together hold the batch, so a rank may have a part of one row more than its own.
    """
    ranks = [list(batches_of(rank)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    for of_ranks in zip(*ranks, strict=True):
        sizes = [len(numbers(batch)) for batch in of_ranks]
        assert {batch.num_samples_global for batch in of_ranks} == {sum(sizes)}
        assert max(sizes) - min(sizes) <= 1
        for batch in of_ranks:
            of_row = batch.source_ids.shape[1] + batch.targets.shape[1]
            assert of_row * len(batch.targets) < budget + of_row
            assert of_row <= budget
    seen = [number for batches in ranks for batch in batches for number in numbers(batch)]
    assert sorted(seen) == list(range(NUM_PAIRS))


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 4), st.integers(2 * MOST_TOKENS, 500), st.integers(1, 90), st.integers(0, 3))
def test_ranks_share_every_epoch_without_loss(
    stores: PairStores, world_size: int, budget: int, pool: int, epoch: int
) -> None:
    order = TokenBudgetOrder(stores.lengths, budget * world_size, 1, pool)
    first = sum(len(order.epoch(number)) for number in range(epoch))
    indices = range(first, first + len(order.epoch(epoch)))
    check_ranks(lambda rank: map(BudgetBatches(stores, order, rank, world_size), indices), world_size, budget)
    # The rows of all ranks keep to the budget of all ranks.
    for index in indices:
        rows = stores.lengths[order.batch(index)]
        assert len(rows) * rows.max(axis=0).sum() <= budget * world_size


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 4), st.integers(2 * MOST_TOKENS, 500))
def test_ranks_share_the_pairs_to_measure_on(stores: PairStores, world_size: int, budget: int) -> None:
    loaders = [EvaluationPairs(stores, budget, rank, world_size) for rank in range(world_size)]
    check_ranks(lambda rank: map(loaders[rank], range(loaders[rank].num_batches)), world_size, budget)
    for loader in loaders:
        for index in range(loader.num_batches):
            assert numbers(loader(index)) == loader.pairs(index).tolist()


def test_planted_fault_ranks_that_drop_the_rest_are_noticed(stores: PairStores) -> None:
    order = TokenBudgetOrder(stores.lengths, 900, 1)

    def dropped(rank: int) -> Iterable[TranslationBatch]:
        for batch in order.epoch(0):
            yield stores.batch(batch[: len(batch) // 3 * 3] if len(batch) > 3 else batch, rank, 3)

    with pytest.raises(AssertionError):
        check_ranks(dropped, 3, 300)


def test_planted_fault_batches_beyond_the_budget_are_noticed(stores: PairStores) -> None:
    """Of every rank, as if each had the budget of all."""
    order = TokenBudgetOrder(stores.lengths, 3 * 900, 1)
    loaders = [BudgetBatches(stores, order, rank, 3) for rank in range(3)]
    with pytest.raises(AssertionError):
        check_ranks(lambda rank: map(loaders[rank], range(loaders[rank].num_batches)), 3, 300)
    check_ranks(lambda rank: map(loaders[rank], range(loaders[rank].num_batches)), 3, 900)


def test_a_rank_without_a_pair_takes_part_without_a_target(stores: PairStores) -> None:
    batch = stores.batch(np.array([69]), 1, 2)
    assert numbers(batch) == []
    assert (batch.num_samples_global, batch.num_tokens) == (1, 0)
    assert (batch.targets == IGNORED_TARGET).all()


def test_a_very_long_sentence_has_a_batch_of_few_pairs(stores: PairStores) -> None:
    order = TokenBudgetOrder(stores.lengths, 2 * MOST_TOKENS, 0)
    (batch,) = (batch for batch in order.epoch(0) if 69 in batch)
    assert batch.tolist() == [69]
    with pytest.raises(ConfigError) as error:
        TokenBudgetOrder(stores.lengths, 2 * MOST_TOKENS - 1, 0)
    assert "sample 69 alone has 128" in str(error.value)


def test_workers_make_the_same_batches(folder: Path) -> None:
    found = []
    for num_workers in (0, 2):
        data = module(folder, num_workers=num_workers)
        data.setup("fit")
        loaders = [data.train_dataloader(), data.val_dataloader()]
        found.append([[numbers(batch) for batch in loader] for loader in loaders])  # type: ignore[union-attr]
    assert found[0] == found[1]
    assert len(found[0][0]) > 4


# ---------------------------------------------------------------------- resuming


class Recorder(pl.LightningModule):
    """The smallest module that trains on pairs; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(257, 2)
        self.seen: list[list[int]] = []

    def training_step(self, batch: TranslationBatch, batch_index: int) -> torch.Tensor:
        self.seen.append(numbers(batch))
        self.trainer.datamodule.advance(batch.num_samples_global)  # type: ignore[attr-defined]
        loss: torch.Tensor = self.embedding(batch.source_ids).square().mean()
        return loss

    def validation_step(self, batch: TranslationBatch, batch_index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(
    data: TranslationDataModule, folder: Path, checkpoint: Path | None = None, **options: Any
) -> list[list[int]]:
    recorder = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)],
        **{"max_steps": 30, "max_epochs": -1, **options},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(recorder, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return recorder.seen


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[list[list[int]], Path]:
    """The batches of an uninterrupted run of some epochs, and its checkpoints."""
    return train(module(folder), folder / "whole"), folder / "whole"


def test_epochs_have_every_pair_once_and_differ(whole: tuple[list[list[int]], Path]) -> None:
    seen = [number for batch in whole[0] for number in batch]
    first, second = seen[:NUM_PAIRS], seen[NUM_PAIRS : 2 * NUM_PAIRS]
    assert sorted(first) == sorted(second) == list(range(NUM_PAIRS))
    assert first != second


@pytest.mark.parametrize(("step", "num_workers"), [(1, 0), (5, 0), (12, 2), (17, 0), (29, 0)])
def test_resuming_after_any_step_gives_the_same_batches(
    whole: tuple[list[list[int]], Path], folder: Path, tmp_path: Path, step: int, num_workers: int
) -> None:
    data = module(folder, num_workers=num_workers)
    assert train(data, tmp_path, whole[1] / f"step={step}.ckpt") == whole[0][step:]


def changed_position(path: Path, to: Path, change: int) -> Path:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["TranslationDataModule"]["num_samples_consumed"] += change
    torch.save(checkpoint, to)
    return to


def test_planted_fault_a_cursor_one_batch_behind(
    whole: tuple[list[list[int]], Path], folder: Path, tmp_path: Path
) -> None:
    late = changed_position(whole[1] / "step=5.ckpt", tmp_path / "late.ckpt", -len(whole[0][4]))
    seen = train(module(folder), tmp_path, late)
    assert seen != whole[0][5:]
    assert seen == whole[0][4:-1]


def test_a_position_inside_a_batch_is_refused(
    whole: tuple[list[list[int]], Path], folder: Path, tmp_path: Path
) -> None:
    step = next(step for step, batch in enumerate(whole[0]) if step and len(batch) > 1)
    inside = changed_position(whole[1] / f"step={step}.ckpt", tmp_path / "inside.ckpt", 1)
    with pytest.raises(ConfigError) as error:
        train(module(folder), tmp_path, inside)
    assert "lies inside a batch" in str(error.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_tokens": 301}, "global_batch_tokens=301 (saved: 300)"),
        ({"pool_size": 33}, "pool_size=33 (saved: 32)"),
        ({"seed": 1}, "seed=1 (saved: 0)"),
        ({"max_source_length": 20}, "training_text="),
    ],
)
def test_the_position_of_other_data_is_refused(
    whole: tuple[list[list[int]], Path], folder: Path, options: dict[str, Any], named: str
) -> None:
    state = torch.load(whole[1] / "step=5.ckpt", weights_only=True)["TranslationDataModule"]
    data = module(folder, **options)
    data.setup("fit")
    with pytest.raises(CheckpointError) as error:
        data.load_state_dict(state)
    assert named in str(error.value)
