"""The strategies ``fsdp2``, whose checkpoints are like those of one process, and ``ddp``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    ParallelStrategy,
    StrategyRegistry,
)
from torch.distributed.constants import default_pg_timeout
from torch.optim import Optimizer

from insight.models import row_orders, row_orders_by_parameter
from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.numbers import require_number
from insight.runtime.sharded_tensors import part_like, whole
from insight.training.lightning_internals import (
    measure_without_inference_mode,
    set_mesh_sizes,
    tensor_parallel_size,
    use_timeout_in_mesh,
)
from insight.training.parallel.sharding import drop_gathered

_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true", "64-true")


class FSDP2Strategy(ModelParallelStrategy):
    """Fully sharded data parallelism, with tensor parallelism as a second dimension.

    Unlike Lightning's own strategy it writes one file, as a single process would: tensors are gathered on
    saving and cut on loading. A run can therefore be resumed with another number of processes or another
    strategy, and the Trainer's checkpoint writer writes the file, completely or not at all.

    Gradients are averaged at every micro-batch of an accumulation, since deferring that would need memory
    for whole gradients.

    Args:
        data_parallel_size: Number of replicas, each with its own samples; ``auto`` for the largest possible.
        tensor_parallel_size: Number of processes that share the matrices of a replica.
        process_group_backend: ``nccl``, ``gloo``, …; the default depends on the device.
        timeout: The time that a process waits for the others.
    """

    strategy_name = "fsdp2"

    def __init__(
        self,
        data_parallel_size: int | Literal["auto"] = "auto",
        tensor_parallel_size: int = 1,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        for name, size in (
            ("data_parallel_size", data_parallel_size),
            ("tensor_parallel_size", tensor_parallel_size),
        ):
            if size != "auto":
                require_number(name, size, 1, whole=True, at_least=1)
        super().__init__(
            data_parallel_size,
            tensor_parallel_size,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )

    def setup_environment(self) -> None:
        precision = self.precision_plugin.precision
        if precision not in _PRECISIONS:
            raise ConfigError(
                "strategy fsdp2 cannot train so",
                f"use {', '.join(_PRECISIONS[:-1])} or {_PRECISIONS[-1]}",
                option="trainer.precision",
                value=precision,
            )
        replicas, shared = set_mesh_sizes(self)
        num_processes = self.num_nodes * self.num_processes
        if replicas * shared != num_processes:
            raise ConfigError(
                f"data_parallel_size={replicas} times tensor_parallel_size={shared} is {replicas * shared}, "
                f"but there are {num_processes} processes",
                "change trainer.devices, trainer.num_nodes or one of the sizes",
            )
        super().setup_environment()
        use_timeout_in_mesh(self)

    def setup(self, trainer: Trainer) -> None:
        super().setup(trainer)
        measure_without_inference_mode(trainer)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """The samples of this process, known before the rendezvous."""
        shared = tensor_parallel_size(self)
        num_processes = self.num_nodes * self.num_processes
        return {"num_replicas": max(1, num_processes // shared), "rank": self.global_rank // shared}

    # ------------------------------------------------------------------ checkpoints

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: Lightning calls :meth:`load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights, gathered, on the first process; an empty dict on the others."""
        module = self.lightning_module
        assert module is not None
        return self._gathered(module.state_dict(), row_orders(module))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole optimizer state on the first process; the state without tensors on the others."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        state = optimizer.state_dict()
        gathered = {}
        orders_of = self._row_orders()
        for number, parameter in _numbered_parameters(state, optimizer):
            if number in state["state"]:
                kept, order = state["state"][number], orders_of.get(parameter)
                orders = {name: order for name, value in kept.items() if _is_like(value, parameter)}
                gathered[number] = self._gathered(kept, orders)
        return {**state, "state": gathered}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give every process its part of the weights."""
        module = self.lightning_module
        assert module is not None
        own, orders = module.state_dict(), row_orders(module)
        parts = {
            name: part_like(tensor, own[name], orders.get(name)) if name in own else tensor
            for name, tensor in checkpoint["state_dict"].items()
        }
        module.load_state_dict(parts, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give every process its part of the optimizers' state."""
        orders_of = self._row_orders()
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            state = {}
            for number, parameter in _numbered_parameters(saved, optimizer):
                order = orders_of.get(parameter)
                state[number] = {
                    name: part_like(value, parameter, order) if _is_like(value, parameter) else value
                    for name, value in saved["state"].get(number, {}).items()
                }
            optimizer.load_state_dict({**saved, "state": {n: kept for n, kept in state.items() if kept}})
            _check_shapes(optimizer)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Let the first process write the file, through the Trainer's ``checkpoint_io``."""
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The file's contents, on every process."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only=weights_only)

    def _gathered(
        self, tensors: Mapping[str, Any], row_orders: Mapping[str, torch.Tensor | None]
    ) -> dict[str, Any]:
        """All tensors whole on the first process, gathered one by one so that no device holds them all."""
        gathered = {}
        for name, value in tensors.items():
            if isinstance(value, torch.Tensor):
                value = whole(value.detach(), row_orders.get(name))
                value = value.cpu() if self.is_global_zero else None
            if self.is_global_zero:
                gathered[name] = value
        return gathered

    def _row_orders(self) -> dict[torch.Tensor, torch.Tensor]:
        module = self.lightning_module
        assert module is not None
        return row_orders_by_parameter(module)

    # ------------------------------------------------------------------ evaluation

    def on_validation_end(self) -> None:
        """Free weights that are still gathered."""
        assert self.lightning_module is not None
        drop_gathered(self.lightning_module)

    on_test_end = on_predict_end = on_validation_end


def _numbered_parameters(
    state: Mapping[str, Any], optimizer: Optimizer
) -> Iterable[tuple[int, torch.Tensor]]:
    """Parameters with their numbers in a state; ``prepare_for_resuming`` refuses a state of other groups."""
    numbers = itertools.chain.from_iterable(group["params"] for group in state["param_groups"])
    parameters = itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups)
    return zip(numbers, parameters, strict=False)


def _check_shapes(optimizer: Optimizer) -> None:
    """Refuse optimizer state by row or column, as Adafactor has, which would have to be cut differently."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.numel() > 1 and not _is_like(value, parameter):
                raise CheckpointError(
                    f"{type(optimizer).__name__} keeps {name!r} of shape {tuple(value.shape)} for weights of "
                    f"shape {tuple(parameter.shape)}: strategy fsdp2 cannot cut it",
                    "resume with --trainer.strategy ddp",
                )


def _is_like(value: Any, parameter: torch.Tensor) -> bool:
    """Whether a state value is sharded like its parameter; counters and other single numbers are whole."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


StrategyRegistry.register("fsdp2", FSDP2Strategy, description="Fully sharded data parallelism (FSDP2)")


# Gradients become views of the buckets that are summed (Li et al. 2020, arXiv 2006.15704, section 3.2.3),
# which saves the memory of separate buckets and the copies.
StrategyRegistry.register(
    "ddp",
    DDPStrategy,
    description="Data parallelism, gradients summed in buckets that they are views of",
    override=True,
    gradient_as_bucket_view=True,
)
