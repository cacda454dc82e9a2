"""Evaluates and saves other weights than those in training: a schedule-free optimizer's, or an average."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from insight.callbacks.trainer import TrainingState
from insight.checkpoints.format import EVALUATION_WEIGHTS, TRAINING_WEIGHTS, use_training_weights
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number
from insight.runtime.sharded_tensors import local


class EvaluationWeights(TrainingState):
    """Evaluates and saves the evaluation weights of an optimizer that has its own, as schedule-free ones do.

    Schedule-free optimizers (Defazio et al. 2024, arXiv 2405.15682) compute gradients at one set of weights
    and are evaluated at another; their methods ``eval()`` and ``train()`` switch between the two. With any
    other optimizer this callback does nothing.

    The network has its evaluation weights from the start of a validation to the next training step, and
    after training. They are the ``state_dict`` of every checkpoint; the ``training_weights`` beside it are
    stored, not recomputed, so that training continues from them bit for bit.
    """

    def reset(self) -> None:
        self._names: list[str] = []
        self._parameters: list[nn.Parameter] = []
        # Kept here while the evaluation weights are in place.
        self._training: list[torch.Tensor] | None = None
        self._restored: dict[str, Any] | None = None
        self._is_active = False

    def begin(self, trainer: Trainer) -> bool:
        """Prepare while the network has its training weights; return whether evaluation weights exist."""
        return bool(_switching_optimizers(trainer))

    def enter(self, trainer: Trainer) -> None:
        """Write the evaluation weights into the network."""
        for optimizer in _switching_optimizers(trainer):
            optimizer.eval()

    def leave(self, trainer: Trainer) -> None:
        """Prepare for the training weights, which are written back after this call."""
        for optimizer in _switching_optimizers(trainer):
            optimizer.train()

    def put_back(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """React to a rollback, which has loaded weights and optimizer state from ``checkpoint``."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._training, self._parameters, self._is_active = None, [], False

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit" or TRAINING_WEIGHTS not in checkpoint:
            return
        if EVALUATION_WEIGHTS not in checkpoint:  # the user's own module, which has loaded evaluation weights
            use_training_weights(checkpoint)
            trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
        self._restored = checkpoint[EVALUATION_WEIGHTS]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A shared parameter has several names in a state dict.
        everywhere = pl_module.named_parameters(remove_duplicate=False)
        self._names = [name for name, parameter in everywhere if parameter.requires_grad]
        self._parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        self._is_active = self.begin(trainer)
        self._restored = None

    def _put_evaluation_weights(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if self._is_active and self._training is None:
            self._training = [parameter.detach().clone() for parameter in self._parameters]
            self.enter(trainer)

    on_validation_start = on_train_end = _put_evaluation_weights

    def _put_training_weights(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if self._training is not None:
            self.leave(trainer)
            self._copy(self._training)
            self._training = None

    on_train_batch_start = _put_training_weights

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self._is_active:
            return
        present, measured = checkpoint["state_dict"], self._training is not None
        there, back = self._put_evaluation_weights, self._put_training_weights
        if measured:
            there, back = back, there
        there(trainer)
        state = trainer.strategy.lightning_module_state_dict()
        # Copies, since the tensors of a state dict are the parameters themselves.
        others = {name: state[name].clone() for name in self._names if name in state}
        if measured and _switching_optimizers(trainer):  # save the state that belongs to the training weights
            states = [trainer.strategy.optimizer_state(optimizer) for optimizer in trainer.optimizers]
            checkpoint["optimizer_states"] = states
        back(trainer)
        if measured:
            checkpoint[TRAINING_WEIGHTS] = others
        else:
            checkpoint[TRAINING_WEIGHTS] = {name: present[name] for name in others}
            checkpoint["state_dict"] = {**present, **others}

    @torch.no_grad()
    def _copy(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)


def _switching_optimizers(trainer: Trainer) -> list[Any]:
    return [one for one in trainer.optimizers if hasattr(one, "eval") and hasattr(one, "train")]


class AveragedWeights(EvaluationWeights):
    """Averages the weights over the last steps; validation, samples and checkpoints use the average.

    After each optimizer step the average moves by ``1 - decay`` of the way to the new weights (Polyak and
    Juditsky 1992; Tarvainen and Valpola 2017, arXiv 1703.01780). A run without learning rate decay gains
    most; with decay, the gain is small. The average takes the memory of another copy of the weights, and of
    two copies while it is evaluated. A resumed run continues bit for bit.

    Args:
        decay: Share of the average that is kept at a step; it covers about ``1 / (1 - decay)`` steps.
        warm_up: Whether the decay is lower at first, ``min(decay, (1 + n) / (10 + n))`` after n updates, so
            that the first weights are soon forgotten.
    """

    saved = ("num_updates",)
    _hook: Any = None

    def __init__(self, decay: float = 0.999, warm_up: bool = True) -> None:
        require_number("decay", decay, 0.999, at_least=0, below=1)
        self.decay, self.warm_up = decay, warm_up
        super().__init__()

    def reset(self) -> None:
        super().reset()
        self.num_updates = 0
        self._averages: list[torch.Tensor] = []

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            self._averages = []
            if self._hook is not None:
                self._hook.remove()

    def begin(self, trainer: Trainer) -> bool:
        if super().begin(trainer):
            problem = "AveragedWeights: the optimizer makes an average of its own"
            raise ConfigError(problem, "leave one of the two out")
        narrow = next((p.dtype for p in self._parameters if p.dtype.itemsize < torch.float32.itemsize), None)
        if narrow is not None:
            problem = f"AveragedWeights: an average in {str(narrow).removeprefix('torch.')} would stand still"
            remedy = "use --trainer.precision bf16-mixed, which keeps the weights in float32"
            raise ConfigError(problem, remedy)
        self._begin_averages(trainer, self._restored)
        # Right after the step, so that every later save contains the updated average.
        self._hook = trainer.optimizers[0].register_step_post_hook(self._update)
        return True

    def put_back(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        self.num_updates = 0  # for a checkpoint without an average
        kept = checkpoint.get("callbacks", {}).get(self.state_key)
        if kept is not None:
            self.load_state_dict(kept)
        self._begin_averages(trainer, checkpoint.get(EVALUATION_WEIGHTS))

    def _begin_averages(self, trainer: Trainer, restored: dict[str, Any] | None) -> None:
        """Start from the averages of a checkpoint, or else from the weights of the network."""
        training = [parameter.detach().clone() for parameter in self._parameters]
        if restored is not None:
            trainer.strategy.load_model_state_dict({"state_dict": restored}, strict=False)
        self._averages = [parameter.detach().clone() for parameter in self._parameters]
        self._copy(training)

    @torch.no_grad()
    def _update(self, *_: Any) -> None:
        fastest = (1 + self.num_updates) / (10 + self.num_updates)
        decay = min(self.decay, fastest) if self.warm_up else self.decay
        averages, weights = [list(map(local, tensors)) for tensors in (self._averages, self._parameters)]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        self.num_updates += 1

    def enter(self, trainer: Trainer) -> None:
        self._copy(self._averages)

    def leave(self, trainer: Trainer) -> None:
        """Do nothing."""
