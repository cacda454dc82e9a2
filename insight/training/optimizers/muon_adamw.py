"""Muon on the matrices inside blocks, AdamW on everything else, in one optimizer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import distributed, nn
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from insight.models import muon_splits, row_orders_by_parameter
from insight.runtime.errors import ConfigError
from insight.runtime.hardware import measure_matmul_rate
from insight.runtime.sharded_tensors import local, part_like, whole
from insight.training.optimizers.base import LAYER_DECAY, MEAN_DECAY, RATE, WEIGHT_DECAY, OptimizerConfig
from insight.training.optimizers.parameter_groups import parameter_groups

# The quintic of Jordan et al.: x -> a x + b x^3 + c x^5 drives singular values between 0 and 1 towards 1
# fast at the price of leaving them within about [0.7, 1.2].
_A, _B, _C = 3.4445, -4.7750, 2.0315
_BFLOAT16_GAIN_NEEDED = 1.3


def orthogonalize(matrices: torch.Tensor, num_iterations: int) -> torch.Tensor:
    """Roughly the nearest orthogonal matrices: singular vectors kept, singular values near 1.

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); Bernstein and Newhouse 2024,
    arXiv 2409.20325. The products run in the type of ``matrices``; bfloat16 is precise enough, since what
    it loses (2% of the result) is far below what the quintic leaves.

    Args:
        matrices: ``(batch, rows, columns)``; overwritten.
        num_iterations: Iterations of the quintic.

    Returns:
        ``(batch, rows, columns)``.
    """
    x = matrices.mul_(matrices.norm(dim=(-2, -1), keepdim=True).clamp_min_(1e-7).reciprocal_())
    # Tall matrices are multiplied from the right, so that the square in between is always the small one.
    tall = x.shape[-2] > x.shape[-1]
    for _ in range(num_iterations):
        gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
        factor = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        # a·x goes in through the diagonal: it costs a row of the small square instead of a pass over x.
        factor.diagonal(dim1=-2, dim2=-1).add_(_A)
        x = torch.bmm(x, factor) if tall else torch.bmm(factor, x)
    return x


@functools.cache
def faster_dtype(device: str) -> str:
    """``"bfloat16"`` where its products were measured to be clearly faster, else ``"float32"``.

    A machine without bfloat16 instructions emulates them, up to 50 times slower than float32.

    Args:
        device: Device type that holds the parameters.
    """
    single = measure_matmul_rate(torch.float32, device)
    try:
        half = measure_matmul_rate(torch.bfloat16, device)
    except (RuntimeError, NotImplementedError):  # the device lacks the type
        return "float32"
    return "bfloat16" if half > _BFLOAT16_GAIN_NEEDED * single else "float32"


def agreed_dtype(device: str) -> str:
    """:func:`faster_dtype` of the first process, for all processes of a run: their updates must be the same.

    Every process has to ask at the same time.
    """
    choice = [faster_dtype(device)]
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast_object_list(choice, src=0)
    return choice[0]


_PRECISIONS = ("auto", "bfloat16", "float32")


@dataclass(frozen=True)
class MuonAdamW(OptimizerConfig):
    """Momentum orthogonalised by Newton-Schulz for hidden matrices, AdamW for the rest.

    Muon: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); the update of a matrix is scaled
    by sqrt(max(1, rows / columns)). Matrices that share one weight (queries, keys and values; gate and up;
    experts) are orthogonalised one by one, all of equal shape in one batched product. Where processes hold
    parts of a matrix, each gathers the whole, orthogonalises it and keeps its part.

    Args:
        learning_rate: Learning rate of Muon: about the spectral norm of a step.
        adam_learning_rate: Learning rate of the head, norms, biases and routers of experts.
        embedding_learning_rate: Learning rate of the token embedding. A row moves only when its token
            occurs, so it bears a much higher rate; in short runs this rate counted most.
        momentum: Momentum of Muon, with Nesterov's look ahead.
        num_iterations: Number of Newton-Schulz iterations.
        precision: Type of their products: ``bfloat16``, ``float32``, or ``auto`` for the one that this
            machine multiplies faster. A resumed run with ``auto`` keeps the type it began with.
        beta1: Decay of AdamW's mean of gradients.
        beta2: Decay of AdamW's mean of squared gradients.
        weight_decay: Decoupled decay of the hidden matrices.
        layer_decay: Factor of all learning rates from each block to the one below, the embedding last; 1 for
            none. Matrices of different blocks then share no batched product, which makes a step slower.
    """

    learning_rate: float = 0.02
    adam_learning_rate: float = 3e-3
    embedding_learning_rate: float = 0.09
    momentum: float = 0.95
    num_iterations: int = 5
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    layer_decay: float = 1.0

    _ranges: ClassVar[dict[str, dict[str, Any]]] = {
        "learning_rate": RATE,
        "adam_learning_rate": RATE,
        "embedding_learning_rate": RATE,
        "momentum": MEAN_DECAY,
        "num_iterations": {"example": 5, "whole": True, "at_least": 1, "at_most": 20},
        "beta1": MEAN_DECAY,
        "beta2": MEAN_DECAY,
        "weight_decay": WEIGHT_DECAY,
        "layer_decay": LAYER_DECAY,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in _PRECISIONS:
            raise ConfigError(
                "unknown type", f"use {', '.join(_PRECISIONS)}", option="precision", value=self.precision
            )

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        splits = muon_splits(network)
        groups: list[dict[str, Any]] = []
        rows_of: dict[nn.Parameter, tuple[int, ...]] = {}
        for group in parameter_groups(network, self.layer_decay):
            role, parameters = group.role, group.parameters
            common = {"params": list(parameters.values()), "role": role}
            if role == "hidden":
                rows_of.update({p: splits.get(name, (p.shape[-2],)) for name, p in parameters.items()})
                rate = self.learning_rate
                device = next(iter(parameters.values())).device.type
                settings = {
                    "momentum": self.momentum,
                    "num_iterations": self.num_iterations,
                    "precision": self.precision,
                    "dtype": agreed_dtype(device) if self.precision == "auto" else self.precision,
                    "weight_decay": self.weight_decay,
                }
            else:
                rate = self.embedding_learning_rate if role == "embedding" else self.adam_learning_rate
                settings = {"beta1": self.beta1, "beta2": self.beta2}
            rate *= group.rate_factor
            groups.append({**common, "lr": rate, "initial_lr": rate, **settings})
        return MuonAdamWOptimizer(groups, rows_of, row_orders_by_parameter(network))

    def numbers_kept(self, role: str) -> int:
        return 1 if role == "hidden" else 2


class MuonAdamWOptimizer(torch.optim.Optimizer):
    """The built form of :class:`MuonAdamW`.

    Args:
        groups: Parameter groups; those of role ``hidden`` are updated by Muon, all others by AdamW.
        rows_of: Numbers of rows of the matrices that each hidden parameter (or each expert in it) fuses.
        order_of: The order of the rows of those parameters whose rows are not in their own order.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        rows_of: dict[nn.Parameter, tuple[int, ...]],
        order_of: dict[torch.Tensor, torch.Tensor],
    ) -> None:
        super().__init__(groups, {})
        self._rows_of = rows_of
        self._order_of = order_of

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["role"] == "hidden":
                # Where parameters are cut, each is gathered alone: all at once would be the whole network.
                is_cut = any(isinstance(p, DTensor) for p in parameters)
                for chosen in [[p] for p in parameters] if is_cut else [parameters]:
                    self._muon(group, chosen)
            elif parameters:
                self._adamw(group, parameters)
        return loss

    def _adamw(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[p] for p in parameters]
        adamw(  # number by number, so that each process can do its part
            [local(p) for p in parameters],
            [local(p.grad) for p in parameters if p.grad is not None],
            [local(state["exp_avg"]) for state in states],
            [local(state["exp_avg_sq"]) for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=group["lr"],
            beta1=group["beta1"],
            beta2=group["beta2"],
            weight_decay=0.0,
            eps=1e-8,
        )

    def _muon(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        batches: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        changes: list[tuple[nn.Parameter, torch.Tensor]] = []
        if group["weight_decay"]:
            torch._foreach_mul_([local(p) for p in parameters], 1 - group["lr"] * group["weight_decay"])
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = local(state["momentum"]).lerp_(local(gradient), 1 - group["momentum"])
            target: torch.Tensor = parameter
            if isinstance(parameter, DTensor):  # a part of a matrix cannot be made orthogonal
                update = gradient.clone()
                local(update).lerp_(momentum, group["momentum"])
                update = whole(update, self._order_of.get(parameter))
                target = torch.zeros_like(update)
                changes.append((parameter, target))
            else:
                update = gradient.lerp(momentum, group["momentum"])
            rows = list(self._rows_of[parameter])
            for matrix, part in zip(_matrices(target, rows), _matrices(update, rows), strict=True):
                batches.setdefault(part.shape, []).append((matrix, part))
        dtype = getattr(torch, group["dtype"])
        for shape, pairs in batches.items():
            stacked = torch.empty((len(pairs), *shape), dtype=dtype, device=pairs[0][0].device)
            for slot, (_, part) in zip(stacked, pairs, strict=True):
                slot.copy_(part)
            orthogonal = orthogonalize(stacked, group["num_iterations"])
            scale = math.sqrt(max(1.0, shape[0] / shape[1]))
            for direction, (matrix, _) in zip(orthogonal, pairs, strict=True):
                matrix.add_(direction, alpha=-group["lr"] * scale)
        for parameter, change in changes:
            local(parameter).add_(local(part_like(change, parameter, self._order_of.get(parameter))))


def _matrices(weight: torch.Tensor, rows: list[int]) -> list[torch.Tensor]:
    """Views of the matrices that a weight fuses: its parts by rows, of every expert where stacked."""
    parts = torch.split(weight, rows, dim=-2)
    return [matrix for part in parts for matrix in (part if part.ndim == 3 else (part,))]
