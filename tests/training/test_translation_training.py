"""Training a translation model: resuming, accumulation, positions, vocabularies, directions and scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from test_resume import SaveAt
from tiny_training import LossRecorder, make_trainer, same_weights
from tiny_translation_training import NUM_VALIDATION_PAIRS, WORDS, make_data, make_module, make_network
from torch.utils.data import DataLoader

from insight.callbacks import AveragedWeights, EarlyStopping, RunCheckpoint
from insight.checkpoints.reader import (
    LoadedTranslationModel,
    load_any_checkpoint,
    load_checkpoint,
    read_checkpoint,
)
from insight.checkpoints.resume import check_fits
from insight.data import BPETokenizerConfig, ByteTokenizerConfig
from insight.models import DecoderConfig, EncoderConfig, EncoderDecoderConfig, GroupedQueryAttention
from insight.models.positions import Alibi, NoPosition, RelativeBias, Rope, SinusoidalPosition
from insight.runtime.errors import CheckpointError
from insight.runtime.seeding import seed_everything
from insight.training import TranslationModule
from insight.training.guards import samples_of
from insight.training.step import AccumulationWindow

SAVED, END = 5, 12


def train(
    folder: Path,
    max_steps: int,
    *callbacks: pl.Callback,
    checkpoint: Path | None = None,
    module: TranslationModule | None = None,
    data: dict[str, Any] | None = None,
    **trainer_options: Any,
) -> tuple[LossRecorder, TranslationModule, pl.Trainer]:
    seed_everything(1)
    recorder = LossRecorder()
    options = {"limit_val_batches": None, "val_check_interval": 6, "check_val_every_n_epoch": None}
    trainer = make_trainer(folder, max_steps, callbacks=[recorder, *callbacks], **(options | trainer_options))
    module = module or make_module(make_network(dropout=0.1), r_drop=1.0)
    trainer.fit(module, make_data(folder, **(data or {})), ckpt_path=checkpoint and str(checkpoint))
    return recorder, module, trainer


Whole = tuple[LossRecorder, TranslationModule, Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run with dropout and R-Drop over an epoch's end, with a checkpoint in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("whole")
    watch = RunCheckpoint(monitor="validation/chrf", mode="max", folder=str(folder / "checkpoints"))
    stop = EarlyStopping(monitor="validation/bleu", mode="max")
    recorder, module, _ = train(
        folder, END, SaveAt(SAVED, folder / "middle.ckpt"), AveragedWeights(0.9), watch, stop,
        enable_checkpointing=True,
    )  # fmt: skip
    return recorder, module, folder


def test_resumed_in_an_epoch_of_token_budget_batches(whole: Whole) -> None:
    recorder, module, folder = whole
    saved = read_checkpoint(folder / "middle.ckpt")["TranslationDataModule"]["num_samples_consumed"]
    assert 0 < saved < module.data.pair_stores("train").target.num_documents
    again, resumed, _ = train(folder, END, AveragedWeights(0.9), checkpoint=folder / "middle.ckpt")
    assert len(again.losses) == END - SAVED
    assert again.losses == recorder.losses[SAVED:]
    assert again.rates == recorder.rates[SAVED:]
    assert same_weights(module, resumed)


@pytest.mark.parametrize("fault", ["position", "random state"])
def test_a_fault_in_the_saved_state_is_noticed(whole: Whole, tmp_path: Path, fault: str) -> None:
    recorder, _, folder = whole
    contents = torch.load(folder / "middle.ckpt", weights_only=True)
    if fault == "position":
        contents["TranslationDataModule"]["num_samples_consumed"] = 0
    else:
        state = torch.Generator().manual_seed(99).get_state()
        contents["insight"]["random_states"][0]["torch"] = state
    torch.save(contents, tmp_path / "damaged.ckpt")
    again, _, _ = train(folder, SAVED + 2, AveragedWeights(0.9), checkpoint=tmp_path / "damaged.ckpt")
    assert again.losses != recorder.losses[SAVED : SAVED + 2]


def test_checkpoints_of_two_kinds_are_not_confused(whole: Whole) -> None:
    _, module, folder = whole
    path = folder / "checkpoints" / "best.ckpt"  # chosen by chrF++
    loaded = load_any_checkpoint(path)
    assert isinstance(loaded, LoadedTranslationModel)
    assert loaded.languages == ("en", "es")
    assert loaded.source_tokenizer.fingerprint() == module.data.tokenizer.fingerprint()
    with pytest.raises(CheckpointError, match="holds a translation model, not a decoder"):
        load_checkpoint(path)
    contents = read_checkpoint(path)
    with pytest.raises(CheckpointError, match="holds a translation model, and this run trains a decoder"):
        check_fits(contents, path, DecoderConfig(), module.data.tokenizers, "--init_from")
    check_fits(read_checkpoint(path), path, module.network_config, module.data.tokenizers, "--init_from")
    other = ByteTokenizerConfig().build(())
    tokenizers = (module.data.tokenizer, other)
    with pytest.raises(CheckpointError, match="another tokenizer of the source"):
        check_fits(read_checkpoint(path), path, module.network_config, tokenizers, "--resume")


@pytest.mark.slow
def test_scores_are_those_of_sacrebleus_command_line(whole: Whole, tmp_path: Path) -> None:
    """The newest validation translated every sentence of the split, in its order."""
    _, module, _ = whole
    references = module.data.preparation.sentences("validation")[1]
    translations = module.translations["validation"]
    assert len(translations) == len(references) == NUM_VALIDATION_PAIRS
    assert len(set(translations)) > 1
    for name, lines in (("reference", references), ("translation", translations)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = [str(tmp_path / "reference"), "-i", str(tmp_path / "translation")]
    options = ["-m", "bleu", "chrf", "ter", "--chrf-word-order", "2", "-w", "8", "-f", "json"]
    command = [sys.executable, "-m", "sacrebleu", *files, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    metrics = module.trainer.callback_metrics
    for theirs, name in zip(json.loads(done.stdout), ("bleu", "chrf", "ter"), strict=True):
        assert float(metrics[f"validation/{name}"]) == pytest.approx(theirs["score"], rel=1e-5, abs=1e-6)


def test_values_of_sorted_batches_come_back_in_the_order_of_the_text(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    data.setup("validate")
    pairs, target = data.evaluation_pairs("validation"), data.pair_stores("validation").target
    assert pairs.num_batches > 1
    batches = [pairs(index).targets for index in range(pairs.num_batches)]
    ordered = data.in_text_order("validation", batches)
    assert ordered.tolist() == target.tokens(0, target.num_tokens).tolist()


def test_suspects_of_a_guard_are_pairs(tmp_path: Path) -> None:
    """Every pair of a step, with its number in the run and the beginnings of both sides."""
    data = make_data(tmp_path)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    data.advance(batch.num_samples_global)
    found = samples_of([batch], data, 0, 1)
    assert [sample["sample"] for sample in found] == list(range(len(batch.targets)))
    for sample in found:
        source, target = sample["documents"]
        assert target.split() == [WORDS[word] for word in source.split()][: len(target.split())]


@pytest.mark.parametrize(("number", "expected"), [(5, 5), (0, None), (None, NUM_VALIDATION_PAIRS)])
def test_number_of_sentences_translated_in_validation(
    tmp_path: Path, number: int | None, expected: int | None
) -> None:
    module = make_module(translate_in_validation=number)
    train(tmp_path, 1, module=module, val_check_interval=1)
    assert (len(module.translations["validation"]) if expected else None) == expected
    assert ("validation/bleu" in module.trainer.callback_metrics) is (expected is not None)


def gradients_of_one_step(folder: Path, parts: int) -> dict[str, torch.Tensor]:
    """Gradients that reach the optimizer for pairs of unlike length in so many micro-batches."""
    data = make_data(folder)
    data.setup("fit")
    stores = data.pair_stores("train")
    chosen = stores.lengths.sum(axis=1).argsort()[[0, 1, 2, -1]]
    batches = [stores.batch(part) for part in chosen.reshape(parts, -1)]
    caught: dict[str, torch.Tensor] = {}

    class Catch(pl.Callback):
        def on_before_zero_grad(self, trainer: Any, module: Any, optimizer: Any) -> None:
            for name, parameter in module.named_parameters():
                if parameter.grad is not None:
                    caught.setdefault(name, parameter.grad.clone())

    def fixed(self: Any) -> DataLoader[Any]:
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]

    with patch.object(type(data), "train_dataloader", fixed):
        train(folder, 2, Catch(), module=make_module(), accumulate_grad_batches=parts, limit_val_batches=0)
    return caught


@pytest.mark.parametrize("mean_of_means", [False, True])
def test_gradient_of_a_window_is_that_of_the_mean_over_all_target_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean_of_means: bool
) -> None:
    """With the planted fault, a micro-batch of short sentences counts as much as one of long ones."""
    together = gradients_of_one_step(tmp_path, 1)
    if mean_of_means:
        add = AccumulationWindow.add
        monkeypatch.setattr(
            AccumulationWindow,
            "add",
            lambda self, summed: add(self, summed) * self.divisor / summed.num_valid,
        )
        monkeypatch.setattr(AccumulationWindow, "gradient_factor", lambda *_: torch.tensor(1.0))
    parts = gradients_of_one_step(tmp_path, 2)
    assert together.keys() == parts.keys()
    same = all(torch.allclose(parts[name], together[name], rtol=1e-3, atol=1e-6) for name in together)
    assert same is not mean_of_means


SIDES = [
    (Rope(), RelativeBias()),
    (RelativeBias(bidirectional=True), Rope()),
    (Rope(), SinusoidalPosition()),
    (SinusoidalPosition(), Alibi()),
    (Alibi(bidirectional=True), Rope()),
]


def side_options(position: Any) -> dict[str, Any]:
    """The options of a small stack with positions in its attention, or added to what it reads."""
    is_added = isinstance(position, SinusoidalPosition)
    inside = NoPosition() if is_added else position
    attention = GroupedQueryAttention(num_heads=2, position=inside)
    sizes = {"hidden_size": 32, "num_layers": 1, "max_sequence_length": 64, "attention": attention}
    return sizes | ({"input_position": position} if is_added else {})


@pytest.mark.parametrize(("of_encoder", "of_decoder"), SIDES, ids=lambda side: type(side).__name__)
def test_positions_of_either_side(tmp_path: Path, of_encoder: Any, of_decoder: Any) -> None:
    """Every parameter learns, and a validation translates with the cache of such positions."""
    network = EncoderDecoderConfig(
        EncoderConfig(**side_options(of_encoder)),
        DecoderConfig(**side_options(of_decoder)),
        GroupedQueryAttention(num_heads=2, position=NoPosition()),
    )
    module = make_module(network, translate_in_validation=3)
    without: list[str] = []

    class Catch(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            without.extend(name for name, parameter in module.named_parameters() if parameter.grad is None)

    train(tmp_path, 2, Catch(), module=module, val_check_interval=2)
    assert not without
    assert len(module.translations["validation"]) == 3


@pytest.mark.parametrize(
    ("vocabulary", "directions", "shared"),
    [("separate", "forward", False), ("joint", "both", True), ("joint", "forward", False)],
)
def test_vocabularies_and_directions(tmp_path: Path, vocabulary: str, directions: str, shared: bool) -> None:
    path = tmp_path / "end.ckpt"
    module = make_module(make_network(share_embeddings=shared), translate_in_validation=3)
    train(
        tmp_path, 2, SaveAt(2, path), module=module, val_check_interval=2,
        data={
            "vocabulary": vocabulary, "directions": directions,
            "tokenizer": BPETokenizerConfig(vocabulary_size=275),
        },
    )  # fmt: skip
    loaded = load_any_checkpoint(path)
    assert isinstance(loaded, LoadedTranslationModel)
    assert (loaded.source_tokenizer is loaded.tokenizer) is (vocabulary == "joint")
    assert loaded.directions == directions
    assert loaded.network.source_vocabulary_size == loaded.source_tokenizer.vocabulary_size
    network = module.network
    assert (network.encoder.embedding.weight is network.decoder.embedding.weight) is shared
    if directions == "both":
        stores = module.data.pair_stores("train")
        first_ids = {
            int(stores.batch(np.array([pair])).source_ids[0, 0]) for pair in range(len(stores.lengths))
        }
        assert first_ids == {module.data.preparation.tag_id(language) for language in ("es", "en")}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_without_a_validation_text(tmp_path: Path, precision: str) -> None:
    recorder, module, _ = train(
        tmp_path,
        2,
        data={"validation_files": None, "validation_fraction": 0.0},
        precision=precision,
        module=make_module(),
        val_check_interval=1,
    )
    assert len(recorder.losses) == 2
    assert not module.translations
