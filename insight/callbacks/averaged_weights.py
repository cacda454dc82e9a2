"""An exponential moving average of the weights, which is what is measured, saved and used."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.evaluation_weights import EvaluationWeights
from insight.runtime.errors import ConfigError
from insight.runtime.sharded_tensors import local
from insight.training.training_weights import EVALUATION_WEIGHTS


class AveragedWeights(EvaluationWeights):
    """Averages the weights over the last steps; validation, samples and checkpoints are of the average.

    After each optimizer step the average moves by ``1 - decay`` of the way to the new weights (Polyak and
    Juditsky 1992; Tarvainen and Valpola 2017, arXiv 1703.01780). A run without a decay of its learning rate
    gains most; with one, the gain is small. It takes the memory of the weights once more, twice while it is
    measured. A resumed run goes on with average and training weights bit for bit.

    Args:
        decay: Share of the average that stays at a step: about ``1 / (1 - decay)`` steps count.
        warm_up: Whether the average follows faster at first, by ``min(decay, (1 + n) / (10 + n))`` after n
            updates, so that the first weights are soon forgotten.
    """

    def __init__(self, decay: float = 0.999, warm_up: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"AveragedWeights(decay={decay}): must be at least 0 and below 1", "use 0.999")
        super().__init__()
        self.decay = decay
        self.warm_up = warm_up
        self.num_updates = 0
        self._averages: list[torch.Tensor] = []
        self._hook: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_updates = state_dict["num_updates"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.num_updates = 0

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            self._averages = []
            if self._hook is not None:
                self._hook.remove()

    def begin(self, trainer: Trainer) -> bool:
        if super().begin(trainer):
            raise ConfigError(
                "AveragedWeights: the optimizer makes an average of its own", "leave one of the two out"
            )
        narrow = next((p.dtype for p in self._parameters if p.dtype.itemsize < torch.float32.itemsize), None)
        if narrow is not None:
            raise ConfigError(
                f"AveragedWeights: an average in {str(narrow).removeprefix('torch.')} would stand still",
                "use --trainer.precision bf16-mixed, which keeps the weights in float32",
            )
        self._begin_averages(trainer, self._restored)
        # Right behind the step, so that whoever saves after it saves the average of it too.
        self._hook = trainer.optimizers[0].register_step_post_hook(self._update)
        return True

    def put_back(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        self.num_updates = 0  # of a checkpoint without an average
        kept = checkpoint.get("callbacks", {}).get(self.state_key)
        if kept is not None:
            self.load_state_dict(kept)
        self._begin_averages(trainer, checkpoint.get(EVALUATION_WEIGHTS))

    def _begin_averages(self, trainer: Trainer, restored: dict[str, Any] | None) -> None:
        """Begin with the averages of a checkpoint, or else with the weights of the network."""
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
        """Nothing to note."""
