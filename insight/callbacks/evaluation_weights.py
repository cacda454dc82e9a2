"""Puts the weights that are to be used in the place of those that are trained, wherever it matters."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from insight.training.training_weights import EVALUATION_WEIGHTS, TRAINING_WEIGHTS, use_training_weights


class EvaluationWeights(Callback):
    """Measures and saves the weights that an optimizer means to be used, if it trains others.

    Schedule-free optimizers (Defazio et al. 2024, arXiv 2405.15682) and others like them take gradients at
    one point and mean another to be used; their methods ``eval()`` and ``train()`` change from one to the
    other. With any other optimizer this callback does nothing.

    From the start of a validation to the next training step, and when training has ended, the network has
    the weights that are to be used, so samples, safety and metrics are of them. They are the ``state_dict``
    of every checkpoint, and ``training_weights`` beside it are what training goes on from, bit for bit: they
    are kept, never computed back.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._parameters: list[nn.Parameter] = []
        self._training: list[torch.Tensor] | None = None  # set aside while the others are in place
        self._restored: dict[str, Any] | None = None
        self._is_active = False

    # ------------------------------------------------------------------ what a kind of such weights fills in

    def begin(self, trainer: Trainer) -> bool:
        """Prepare; the network has its training weights.

        Returns:
            Whether there are other weights at all.
        """
        return bool(_switching_optimizers(trainer))

    def enter(self, trainer: Trainer) -> None:
        """Write the weights that are to be used into the network."""
        for optimizer in _switching_optimizers(trainer):
            optimizer.eval()

    def leave(self, trainer: Trainer) -> None:
        """Take note that the training weights come back, which are written afterwards."""
        for optimizer in _switching_optimizers(trainer):
            optimizer.train()

    def put_back(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Take note that weights and optimizer state of a checkpoint have been put into a run that goes on.

        Args:
            trainer: Between two steps.
            checkpoint: As :func:`use_training_weights` leaves it.
        """

    # ------------------------------------------------------------------ moments of a run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._training, self._restored, self._is_active = None, None, False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._training, self._parameters, self._is_active = None, [], False

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit" or TRAINING_WEIGHTS not in checkpoint:
            return
        if EVALUATION_WEIGHTS not in checkpoint:  # a module of somebody's own, which has loaded these
            use_training_weights(checkpoint)
            trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
        self._restored = checkpoint[EVALUATION_WEIGHTS]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A parameter in two places has two names in a state dict.
        everywhere = pl_module.named_parameters(remove_duplicate=False)
        self._names = [name for name, parameter in everywhere if parameter.requires_grad]
        self._parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        self._is_active = self.begin(trainer)
        self._restored = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_evaluation_weights(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._put_training_weights(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_evaluation_weights(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self._is_active:
            return
        present = checkpoint["state_dict"]
        measured = self._training is not None
        self._switch(trainer)
        state = trainer.strategy.lightning_module_state_dict()
        # Copies, since the tensors of a state dict are the parameters themselves.
        others = {name: state[name].clone() for name in self._names if name in state}
        if measured and _switching_optimizers(trainer):  # their state is that of the training weights
            states = [trainer.strategy.optimizer_state(optimizer) for optimizer in trainer.optimizers]
            checkpoint["optimizer_states"] = states
        self._switch(trainer)
        if measured:
            checkpoint[TRAINING_WEIGHTS] = others
        else:
            checkpoint[TRAINING_WEIGHTS] = {name: present[name] for name in others}
            checkpoint["state_dict"] = {**present, **others}

    def _switch(self, trainer: Trainer) -> None:
        if self._training is None:
            self._put_evaluation_weights(trainer)
        else:
            self._put_training_weights(trainer)

    def _put_evaluation_weights(self, trainer: Trainer) -> None:
        if self._is_active and self._training is None:
            self._training = [parameter.detach().clone() for parameter in self._parameters]
            self.enter(trainer)

    def _put_training_weights(self, trainer: Trainer) -> None:
        if self._training is not None:
            self.leave(trainer)
            self._copy(self._training)
            self._training = None

    @torch.no_grad()
    def _copy(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)


def _switching_optimizers(trainer: Trainer) -> list[Any]:
    """The optimizers that mean other weights to be used than they train."""
    return [one for one in trainer.optimizers if hasattr(one, "eval") and hasattr(one, "train")]
