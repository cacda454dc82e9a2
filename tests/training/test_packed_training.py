"""Training on packed documents is training on separate ones, and goes on bit for bit."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import SaveAfterBatch, SaveAt
from tiny_training import LossRecorder, make_module, make_trainer, same_weights

from insight.data import (
    IGNORED_TARGET,
    ByteTokenizerConfig,
    LanguageModelBatch,
    LanguageModelingDataModule,
    Mixture,
    Packing,
    SamplingConfig,
    SequenceLengthWarmup,
)
from insight.data.corpora import read_corpus
from insight.runtime.seeding import seed_everything
from insight.training.losses import linear_cross_entropy

N = 10
SAMPLINGS: dict[str, SamplingConfig] = {
    "packing": Packing(),
    "mixture": Mixture({"a": 0.7, "b": 0.3}),
    "packed mixture": Mixture({"a": 1, "b": 2}, Packing()),
    "warm-up": SequenceLengthWarmup(8, 14, sampling=Packing()),
}


def make_data(folder: Path, sampling: SamplingConfig, **options: Any) -> LanguageModelingDataModule:
    """Parts of sentences of a novel as documents; every third is in the second corpus too."""
    parts = read_corpus("austen-emma")[:9_000].split(",")
    paths = {}
    for name, part in (("a", parts), ("b", parts[::3])):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part if text))
        paths[name] = str(path)
    settings = {"sequence_length": 32, "batch_size": 4, "validation_fraction": 0.0} | options
    return LanguageModelingDataModule(
        paths if isinstance(sampling, Mixture) else paths["a"],
        tokenizer=ByteTokenizerConfig(),
        sampling=sampling,
        cache_dir=str(folder / "cache"),
        **settings,
    )


def train(
    folder: Path,
    sampling: SamplingConfig,
    callbacks: tuple[Any, ...] = (),
    ckpt_path: str | None = None,
    **options: Any,
) -> tuple[LossRecorder, torch.nn.Module]:
    seed_everything(1)
    recorder, module = LossRecorder(), make_module(dropout=0.1)
    trainer = make_trainer(folder, 2 * N, callbacks=[recorder, *callbacks], **options)
    trainer.fit(module, make_data(folder, sampling), ckpt_path=ckpt_path, weights_only=True)
    assert trainer.global_step == 2 * N
    return recorder, module


Whole = tuple[LossRecorder, torch.nn.Module, Path]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """The whole run of a sampling, with a checkpoint in its middle; it is trained once."""

    @functools.cache
    def run(name: str) -> Whole:
        path = tmp_path_factory.mktemp("whole") / "middle.ckpt"
        return *train(path.parent, SAMPLINGS[name], (SaveAt(N, path),)), path

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLINGS)
def test_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    whole_run: Callable[[str], Whole], name: str
) -> None:
    whole, module, path = whole_run(name)
    resumed, resumed_module = train(path.parent, SAMPLINGS[name], ckpt_path=str(path))
    assert len(resumed.losses) == N
    assert resumed.losses == whole.losses[N:]
    assert same_weights(module, resumed_module)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_planted_fault_a_cursor_that_is_off_by_one_batch(
    tmp_path: Path, whole_run: Callable[[str], Whole], name: str
) -> None:
    whole, module, path = whole_run(name)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["LanguageModelingDataModule"]["num_samples_consumed"] += 4
    torch.save(checkpoint, tmp_path / "damaged.ckpt")
    resumed, resumed_module = train(path.parent, SAMPLINGS[name], ckpt_path=str(tmp_path / "damaged.ckpt"))
    assert resumed.losses != whole.losses[N:]
    assert not same_weights(module, resumed_module)


@pytest.mark.slow
def test_resuming_inside_an_accumulation_window_and_a_warm_up(tmp_path: Path) -> None:
    path = tmp_path / "inside.ckpt"
    options = {"accumulate_grad_batches": 3}
    sampling = SAMPLINGS["warm-up"]
    whole, module = train(tmp_path, sampling, (SaveAfterBatch(7, path),), **options)
    resumed, resumed_module = train(tmp_path, sampling, ckpt_path=str(path), **options)
    assert resumed.losses == whole.losses[7:]
    assert same_weights(module, resumed_module)


def documents_of(batch: LanguageModelBatch) -> list[LanguageModelBatch]:
    """Every document of a packed batch in a batch of its own, without ids and positions."""
    assert batch.document_ids is not None
    alone = []
    for row, ids in enumerate(batch.document_ids):
        for document in ids.unique().tolist():
            chosen = ids == document
            targets = batch.targets[row, chosen]
            if (targets != IGNORED_TARGET).any():
                alone.append(LanguageModelBatch(batch.input_ids[row, chosen][None], targets[None]))
    return alone


def loss_and_gradients(network: Any, batches: list[LanguageModelBatch]) -> tuple[float, list[torch.Tensor]]:
    """Summed loss over all tokens of the batches, by the real module's network and loss."""
    network.zero_grad()
    total = 0.0
    for batch in batches:
        hidden = network(batch.input_ids, document_ids=batch.document_ids, position_ids=batch.position_ids)
        summed = linear_cross_entropy(hidden, network.head_weight, batch.targets)
        summed.loss.backward()
        total += float(summed.loss.detach())
    return total, [p.grad.clone() for p in network.parameters() if p.grad is not None]


class KeepFirst(LossRecorder):
    """Keeps the first batch of a run, and the network before anything was learned from it."""

    batch: LanguageModelBatch
    network: torch.nn.Module

    def on_train_batch_start(self, trainer: Any, module: Any, batch: LanguageModelBatch, index: int) -> None:
        self.batch, self.network = batch, copy.deepcopy(module.network)


@pytest.mark.parametrize("fault", ["none", "documents are seen as one"])
def test_packed_loss_is_that_of_separate_documents(tmp_path: Path, fault: str) -> None:
    """The loss that the run reported, and the gradient, with and without packing."""
    seed_everything(1)
    recorder = KeepFirst()
    trainer = make_trainer(tmp_path, 1, callbacks=[recorder])
    trainer.fit(make_module(), make_data(tmp_path, Packing(), sequence_length=64))
    batch, network = recorder.batch, recorder.network.double()
    assert batch.document_ids is not None
    assert int(batch.document_ids.max()) >= 1
    apart, gradients = loss_and_gradients(network, documents_of(batch))
    # The run in float32, its loss divided by all positions; then both ways in float64.
    assert recorder.losses[0] * batch.targets.numel() == pytest.approx(apart, rel=1e-5)
    if fault != "none":
        batch.document_ids = None
    together, packed_gradients = loss_and_gradients(network, [batch])
    same_gradients = all(
        torch.allclose(a, b, rtol=1e-9, atol=1e-10) for a, b in zip(packed_gradients, gradients, strict=True)
    )
    assert (together == pytest.approx(apart, rel=1e-12)) is (fault == "none")
    assert same_gradients is (fault == "none")
