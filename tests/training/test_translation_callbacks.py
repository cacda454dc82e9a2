"""What every training has works for translation models too: freezing, guards, averages, early stopping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from test_freezing import Gradients
from test_guards import Poison
from test_translation_training import train
from tiny_translation_training import QUICK_SEARCH, make_module

from insight.callbacks import AveragedWeights, EarlyStopping, RunCheckpoint
from insight.checkpoints.format import TRAINING_WEIGHTS
from insight.generation.translator import Translator
from insight.training import AdamW, Constant
from insight.training.guards import Guard
from insight.training.stopping import Patience

STILL: dict[str, Any] = {"optimizer": AdamW(learning_rate=1e-12, weight_decay=0.0), "schedule": Constant()}


@pytest.mark.parametrize("patterns", [("encoder.blocks", "decoder.norm"), ()])
def test_frozen_parts_stay(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    """The twin without patterns shows that the same parameters move otherwise."""
    watch = Gradients()
    module = make_module(freeze=patterns)
    train(tmp_path, 3, watch, module=module, limit_val_batches=0)
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, watch.before[name])}
    frozen = {name for name in watch.before if name.removeprefix("network.").startswith(patterns or ("-",))}
    assert bool(frozen) is bool(patterns)
    assert moved == watch.names == watch.before.keys() - frozen


class Weights(pl.Callback):
    """The weights after every step."""

    def __init__(self) -> None:
        self.after: dict[int, list[torch.Tensor]] = {}

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.after[trainer.global_step] = [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize("skips", [True, False])
def test_a_step_without_a_number_is_skipped(tmp_path: Path, skips: bool) -> None:
    """The twin skips steps of finite loss alone, and loses the weights."""
    weights, module = Weights(), make_module(guard=Guard(non_finite="skip"))
    with pytest.MonkeyPatch.context() as patch:
        if not skips:
            patch.setattr("insight.training.guards.StepGuard.admits", lambda *_: True)
        train(tmp_path, 5, Poison(2, kind="loss"), weights, module=module, limit_val_batches=0)
    equal = [
        all(map(torch.equal, weights.after[step], weights.after[step + 1]))
        for step in range(1, len(weights.after))
    ]
    assert (equal == [False, True, False, False]) is skips
    assert all(bool(p.isfinite().all()) for p in module.parameters()) is skips


@pytest.mark.slow
def test_validation_translates_with_the_average_that_checkpoints_hold(tmp_path: Path) -> None:
    saving = RunCheckpoint("validation/chrf", mode="max", folder=str(tmp_path / "checkpoints"))
    module = make_module()
    options = {"enable_checkpointing": True, "val_check_interval": 60}
    train(tmp_path, 60, AveragedWeights(0.9), saving, module=module, **options)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    tokenizer, sources = module.data.tokenizer, module.data.preparation.sentences("validation")[0]

    def translated(weights: dict[str, torch.Tensor]) -> list[str]:
        network = module.network_config.build(tokenizer.vocabulary_size, tokenizer.vocabulary_size).eval()
        named = {name.removeprefix("network."): tensor for name, tensor in weights.items()}
        network.load_state_dict({name: named[name] for name in network.state_dict()})
        found = Translator(network, tokenizer, tokenizer).translate(sources, QUICK_SEARCH)
        return [translation.text for translation in found]

    assert translated(saved["state_dict"]) == module.translations["validation"]
    # The twin: the weights in training translate otherwise.
    assert translated({**saved["state_dict"], **saved[TRAINING_WEIGHTS]}) != module.translations["validation"]


@pytest.mark.slow
@pytest.mark.parametrize("learns", [True, False])
def test_early_stopping_by_a_score_of_translations(tmp_path: Path, learns: bool) -> None:
    """Without progress it ends after the validations without a better score; learning, it goes on."""
    stop = EarlyStopping("validation/chrf", Patience(3), mode="max")
    module = make_module(**({} if learns else STILL))
    _, _, trainer = train(tmp_path, 100, stop, module=module, val_check_interval=20)
    assert len(stop.validations) == (5 if learns else 4)
    assert trainer.global_step == (100 if learns else 80)
    assert float(trainer.callback_metrics["validation/chrf"]) == pytest.approx(
        abs(stop.validations[-1].value)
    )
