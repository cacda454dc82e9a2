"""Muon for the matrices inside blocks and AdamW for everything else, in one optimizer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import distributed, nn
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from insight.models import muon_splits, row_orders_by_parameter
from insight.runtime.errors import ConfigError
from insight.runtime.hardware import measure_matmul_rate
from insight.runtime.sharded_tensors import local, part_like, whole
from insight.training.optimizers.base import OptimizerConfig, optimizer_groups, parameter_groups

# The quintic of Jordan et al., x -> a x + b x^3 + c x^5, drives singular values between 0 and 1 towards 1
# fast, but only to within about [0.7, 1.2].
_A, _B, _C = 3.4445, -4.7750, 2.0315
_BFLOAT16_GAIN_NEEDED = 1.3


def orthogonalize(matrices: torch.Tensor, num_iterations: int) -> torch.Tensor:
    """Approximately the nearest orthogonal matrices: same singular vectors, singular values near 1.

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); Bernstein and Newhouse 2024,
    arXiv 2409.20325. ``matrices`` ``(batch, rows, columns)`` are overwritten; the products run in their type.
    bfloat16 is precise enough: its error (2% of the result) is far below that of the quintic.
    """
    x = matrices.mul_(matrices.norm(dim=(-2, -1), keepdim=True).clamp_min_(1e-7).reciprocal_())
    # Tall matrices are multiplied from the right, so that the square matrix is always the smaller one.
    tall = x.shape[-2] > x.shape[-1]
    for _ in range(num_iterations):
        gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
        factor = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        # Add a·x through the diagonal of the square matrix, which is cheaper than a pass over x.
        factor.diagonal(dim1=-2, dim2=-1).add_(_A)
        x = torch.bmm(x, factor) if tall else torch.bmm(factor, x)
    return x


@functools.cache
def faster_dtype(device: str) -> str:
    """``"bfloat16"`` if its products were measured to be clearly faster, else ``"float32"``.

    A machine without bfloat16 instructions emulates them, up to 50 times slower than float32.
    """
    single = measure_matmul_rate(torch.float32, device)
    try:
        half = measure_matmul_rate(torch.bfloat16, device)
    except (RuntimeError, NotImplementedError):  # the device lacks the type
        return "float32"
    return "bfloat16" if half > _BFLOAT16_GAIN_NEEDED * single else "float32"


def agreed_dtype(device: str) -> str:
    """:func:`faster_dtype` of the first process for all processes, whose updates must be the same.

    Every process must call this at the same time.
    """
    choice = [faster_dtype(device)]
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast_object_list(choice, src=0)
    return choice[0]


_PRECISIONS = ("auto", "bfloat16", "float32")


@dataclass(frozen=True)
class MuonAdamW(OptimizerConfig):
    """Momentum orthogonalised by Newton-Schulz for hidden matrices, AdamW for other parameters.

    Muon: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); the update of a matrix is scaled
    by sqrt(max(1, rows / columns)). Matrices that share one weight (queries, keys and values; gate and up;
    experts) are orthogonalised one by one, all of equal shape in one batched product. If a matrix is
    sharded, each process gathers the whole, orthogonalises it and keeps its part.

    Args:
        learning_rate: Learning rate of Muon, which is about the spectral norm of a step.
        adam_learning_rate: Learning rate of the head, norms, biases and routers of experts.
        embedding_learning_rate: Learning rate of the token embedding. A row changes only when its token
            occurs, so a much higher rate is stable; in short runs this rate mattered most.
        momentum: Nesterov momentum of Muon.
        num_iterations: Number of Newton-Schulz iterations.
        precision: Type of the Newton-Schulz products: ``bfloat16``, ``float32``, or ``auto`` for the type
            that this machine multiplies faster. A resumed run with ``auto`` keeps its type.
        beta1: Decay of AdamW's mean of gradients.
        beta2: Decay of AdamW's mean of squared gradients.
        weight_decay: Decoupled weight decay of the hidden matrices.
        layer_decay: Factor of all learning rates from each block to the one below, the embedding last; 1 for
            none. Steps are slower with it, since matrices of different blocks then share no batched product.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in _PRECISIONS:
            remedy = f"use {', '.join(_PRECISIONS)}"
            raise ConfigError("unknown type", remedy, option="precision", value=self.precision)

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        def options(role: str) -> tuple[float, dict[str, Any]]:
            if role != "hidden":
                rate = self.embedding_learning_rate if role == "embedding" else self.adam_learning_rate
                return rate, {"beta1": self.beta1, "beta2": self.beta2}
            device = next(network.parameters()).device.type
            return self.learning_rate, {
                "momentum": self.momentum,
                "num_iterations": self.num_iterations,
                "precision": self.precision,
                "dtype": agreed_dtype(device) if self.precision == "auto" else self.precision,
                "weight_decay": self.weight_decay,
            }

        splits, groups = muon_splits(network), parameter_groups(network, self.layer_decay)
        named = [item for group in groups if group.role == "hidden" for item in group.parameters.items()]
        rows_of = {p: splits.get(name, (p.shape[-2],)) for name, p in named}
        return MuonAdamWOptimizer(
            optimizer_groups(groups, options), rows_of, row_orders_by_parameter(network)
        )

    def numbers_kept(self, role: str) -> int:
        return 1 if role == "hidden" else 2


class MuonAdamWOptimizer(torch.optim.Optimizer):
    """The built form of :class:`MuonAdamW`: Muon updates groups of role ``hidden``, AdamW all others."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        rows_of: dict[nn.Parameter, tuple[int, ...]],
        order_of: dict[torch.Tensor, torch.Tensor],
    ) -> None:
        super().__init__(groups, {})
        # Numbers of rows of the matrices that each hidden parameter (or each expert in it) fuses.
        self._rows_of = rows_of
        self._order_of = order_of  # of the parameters whose rows are permuted

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["role"] == "hidden":
                # Sharded parameters are gathered one at a time, since all together are the whole network.
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
        constant: Any = {"fused": True, "amsgrad": False, "maximize": False, "weight_decay": 0.0, "eps": 1e-8}
        adamw(  # elementwise, so that each process can update its part
            [local(p) for p in parameters],
            [local(p.grad) for p in parameters if p.grad is not None],
            [local(state["exp_avg"]) for state in states],
            [local(state["exp_avg_sq"]) for state in states],
            [],
            [state["step"] for state in states],
            **{name: group[name] for name in ("lr", "beta1", "beta2")},
            **constant,
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
            if isinstance(parameter, DTensor):  # a part of a matrix cannot be orthogonalised
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
    """Views of the matrices that a weight fuses by rows, for every expert if stacked."""
    parts = torch.split(weight, rows, dim=-2)
    return [matrix for part in parts for matrix in (part if part.ndim == 3 else (part,))]
