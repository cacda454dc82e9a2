"""How large gradients and activations are, layer by layer, every so many steps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.hooks import RemovableHandle

from insight.callbacks.steps import step_completed
from insight.runtime.errors import ConfigError
from insight.runtime.messages import say
from insight.runtime.sharded_tensors import whole
from insight.training.optimizers import parameter_groups


class ModelStatistics(Callback):
    """Logs norm, root mean square, largest size and share of zeros of gradients and activations.

    They are ``gradient/<group>/norm``, ``.../rms``, ``.../max`` and ``.../zeros``, and
    ``activation/<layer>/...`` for what each layer hands on. Gradients are those that the optimizer used,
    after clipping; activations those of the first micro-batch of the step on the first process. Between the
    steps that are looked at nothing is attached to the network, and looking draws no random number:
    training is bit for bit the same.

    A compiled network does not show its activations; set ``model.compile`` to ``off`` to see them.

    Args:
        every_n_steps: Optimizer steps from one look to the next.
        by: Gradients of each ``layer``, or of all parameters of one ``role`` (embedding, hidden, head...).
        activations: Whether to look at activations, too.
    """

    def __init__(
        self, every_n_steps: int = 100, by: Literal["layer", "role"] = "layer", activations: bool = True
    ) -> None:
        if every_n_steps < 1:
            raise ConfigError(
                f"ModelStatistics(every_n_steps={every_n_steps}): must be at least 1",
                "remove ModelStatistics to have no statistics",
            )
        if by not in ("layer", "role"):
            raise ConfigError(f"ModelStatistics(by={by!r}): unknown grouping", "use layer or role")
        self.every_n_steps = every_n_steps
        self.by = by
        self.activations = activations
        self._hooks: list[RemovableHandle] = []
        self._sizes: dict[str, torch.Tensor] = {}
        self._looked_at = -1
        self._told_compiled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._looked_at = -1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.activations and self._is_due(step) and step != self._looked_at:
            self._looked_at = step
            self._sizes = {}
            for name, layer in layers_of(_network(pl_module)).items():
                self._hooks.append(layer.register_forward_hook(self._measuring(name)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        attached = bool(self._hooks)
        self._detach()
        if attached and not self._sizes and not self._told_compiled:
            self._told_compiled = True
            say("ModelStatistics: the network runs compiled, so its activations cannot be seen")
        step = trainer.global_step - 1
        if not (step_completed(trainer) and self._is_due(step)):
            return
        values = {
            f"gradient/{group}/{name}": value
            for group, parameters in self._groups(_network(pl_module)).items()
            for name, value in _shown(_sizes([p.grad for p in parameters if p.grad is not None])).items()
        }
        for layer, sizes in self._sizes.items():
            values |= {f"activation/{layer}/{name}": value for name, value in _shown(sizes).items()}
        self._sizes = {}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach()

    def _is_due(self, step: int) -> bool:
        return (step + 1) % self.every_n_steps == 0

    def _detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _measuring(self, name: str) -> Any:
        def measure(module: nn.Module, inputs: Any, output: Any) -> None:
            if torch.compiler.is_compiling() or not isinstance(output, torch.Tensor):
                return
            if output.is_floating_point():
                self._sizes[name] = _sizes([output.detach()])

        return measure

    def _groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        if self.by == "role":
            return {group.role: list(group.parameters.values()) for group in parameter_groups(network)}
        groups: dict[str, list[nn.Parameter]] = defaultdict(list)
        layers = layers_of(network)
        for name, parameter in network.named_parameters():
            parts = name.split(".")
            layer = next((path for path in (".".join(parts[:2]), parts[0]) if path in layers), parts[0])
            groups[layer].append(parameter)
        return dict(groups)


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network by name: its children, and each of a list of them (``blocks.0``)."""
    layers: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            layers |= {f"{name}.{index}": part for index, part in enumerate(child)}
        else:
            layers[name] = child
    return layers


@torch.no_grad()
def _sizes(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Numbers, sum of squares, largest size and zeros of all ``tensors`` together, float64 ``(4,)``."""
    total = torch.zeros(4, dtype=torch.float64)
    for tensor in tensors:
        if not tensor.numel():
            continue
        norm = torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
        # Of a tensor that is sharded over processes each knows its part.
        squares, largest, zeros = (
            float(whole(value)) for value in (norm.square(), tensor.abs().amax(), (tensor == 0).sum())
        )
        total[0] += tensor.numel()
        total[1] += squares
        total[2] = max(float(total[2]), largest) if math.isfinite(largest) else largest
        total[3] += zeros
    return total


def _shown(sizes: torch.Tensor) -> dict[str, float]:
    count, squares, largest, zeros = sizes.tolist()
    if not count:
        return {}
    return {
        "norm": math.sqrt(squares),
        "rms": math.sqrt(squares / count),
        "max": largest,
        "zeros": zeros / count,
    }


def _network(module: LightningModule) -> nn.Module:
    """The network that is trained: the module's, or the module itself where it has none."""
    network = getattr(module, "network", module)
    return cast(nn.Module, network)
