"""Shards a network over processes: tensor parallelism inside the blocks, FSDP2 around them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    ParallelStrategy,
    StrategyRegistry,
)
from torch import distributed, nn
from torch.distributed.constants import default_pg_timeout
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.optim import Optimizer

from insight.models import Decoder, EncoderDecoder, row_orders, row_orders_by_parameter
from insight.models.attention import AttentionModule
from insight.models.attention.grouped_query import GroupedQueryModule
from insight.models.linear import Projection
from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.numbers import require_number
from insight.runtime.sharded_tensors import local, part_like, whole
from insight.training.lightning_internals import (
    measure_without_inference_mode,
    set_mesh_sizes,
    tensor_parallel_size,
    use_timeout_in_mesh,
)

_Network = TypeVar("_Network", Decoder, EncoderDecoder)


def share_matrices(network: Decoder, mesh: DeviceMesh) -> None:
    """Apply tensor parallelism: each process computes its share of every block. Other blocks are refused.

    Shoeybi et al. 2019, arXiv 1909.08053 (Megatron-LM): the projection to queries, keys and values (or gate
    and up) is cut by rows, the output projection by columns, so that a branch needs one sum over the
    processes forward and one backward. Embedding, norms and head stay whole. The network is on the meta
    device; values for it must be in ``row_order``.
    """
    size = mesh.size()
    for index, block in enumerate(network.layers()):
        attention = _checked(block.attention, size)
        up = getattr(block.feed_forward, "gate_up", None) or getattr(block.feed_forward, "up", None)
        down = getattr(block.feed_forward, "down", None)
        if not (isinstance(up, Projection) and isinstance(down, Projection)):
            raise _refused(f"the feed-forward layer of block {index}", "use SwiGLU, GeGLU or MLP")
        pairs = [(attention.query_key_value, attention.output), (up, down)]
        for rows in (rows for first, _ in pairs for rows in first.splits):
            if rows % size:
                problem = f"tensor_parallel_size={size}: does not divide the {rows} channels inside a branch"
                raise ConfigError(problem, "use a divisor of them, or 1")
        for first, second in pairs:
            first.row_order = rows_by_process(first.splits, size)
            parallelize_module(first, mesh, ColwiseParallel(), src_data_rank=None)
            parallelize_module(second, mesh, RowwiseParallel(), src_data_rank=None)
        attention.num_heads //= size
        attention.num_key_value_heads //= size


def rows_by_process(splits: Sequence[int], size: int) -> torch.Tensor:
    """The row order in which equal cuts give each of ``size`` processes its part of each fused matrix."""
    numbers = torch.split(torch.arange(sum(splits)), list(splits))
    return torch.cat([part.chunk(size)[process] for process in range(size) for part in numbers])


def _checked(attention: AttentionModule, size: int) -> GroupedQueryModule:
    if type(attention) is not GroupedQueryModule:  # heads of a subclass may depend on one another
        raise _refused(type(attention).__name__.removesuffix("Module"), "use GroupedQueryAttention")
    for name in ("num_heads", "num_key_value_heads"):
        heads = getattr(attention, name)
        if heads % size:
            problem = f"tensor_parallel_size={size}: does not divide {name}={heads}"
            raise ConfigError(problem, "use a divisor of both numbers of heads, or 1")
    if attention.position.has_bias or attention.position.extra_channels:
        raise _refused(f"{type(attention.position).__name__} (scores by head)", "use Rope")
    if attention.sinks is not None or attention.gate is not None or attention.dropout:
        raise _refused("attention with sinks, output_gate or dropout", "switch them off")
    for norm in (attention.query_norm, attention.key_norm):
        if any(True for _ in norm.parameters()) or any(True for _ in norm.children()):
            raise _refused("qk_norm with factors or over all heads", "use rms_weightless or none")
    return attention


def _refused(what: str, remedy: str) -> ConfigError:
    problem = f"tensor_parallel_size above 1: cannot share {what}"
    return ConfigError(problem, f"{remedy}, or --trainer.strategy fsdp2")


def shard_network(network: Decoder | EncoderDecoder, mesh: DeviceMesh, precision: str) -> None:
    """Cut every parameter along its first dimension over the processes of ``mesh["data_parallel"]``.

    Fully sharded data parallelism (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3; Zhao et al. 2023,
    arXiv 2304.11277), as torch's FSDP2: a block's weights are gathered right before it runs, forward and
    backward, and dropped after it; its gradient is averaged over the processes, and each keeps its part.
    Embedding, last norm and head are gathered once a step. If ``mesh["tensor_parallel"]`` has several
    processes, they share the matrices of every block first.

    The whole network is on the meta device. Under the precision ``bf16-mixed`` (Lightning's name) the blocks
    are gathered in bfloat16; gradients of narrow types are averaged in float32.

    Raises:
        ConfigError: The network has parameters that cannot be cut.
    """
    owners: dict[nn.Parameter, str] = {}
    for index, block in enumerate(network.layers()):
        for name, parameter in block.named_parameters():
            if owners.setdefault(parameter, f"blocks.{index}") != f"blocks.{index}":
                problem = f"strategy fsdp2: {name} is shared by {owners[parameter]} and blocks.{index}"
                remedy = "use --trainer.strategy ddp, or positions without weights such as Rope"
                raise ConfigError(problem, remedy)
    if mesh["tensor_parallel"].size() > 1:
        if isinstance(network, EncoderDecoder):
            raise _refused("an encoder-decoder", "set it to 1")
        share_matrices(network, mesh["tensor_parallel"])
    reduce_dtype = torch.float32 if precision.startswith(("bf16", "16")) else None
    # The residual stream keeps its type: the inputs of a block are not cast.
    outer = MixedPrecisionPolicy(reduce_dtype=reduce_dtype, cast_forward_inputs=False)
    inner = outer if precision != "bf16-mixed" else dataclasses.replace(outer, param_dtype=torch.bfloat16)
    replicas = mesh["data_parallel"]
    for block in network.layers():
        if inner.param_dtype is not None:
            # Its gathered weights are always bfloat16, so it needs autocast outside of the Trainer's steps
            # too: in samples, in the safety suite, in a callback.
            autocast = torch.autocast(replicas.device_type, dtype=inner.param_dtype)
            block.forward = autocast(block.forward)
        fully_shard(block, mesh=replicas, mp_policy=inner)
    # The loss reads the head's matrix after the forward pass, so that stays gathered until the backward pass.
    fully_shard(network, mesh=replicas, mp_policy=outer, reshard_after_forward=False)


def is_sharded(network: nn.Module) -> bool:
    """Whether each process holds only a part of the network, so that all processes must run it together."""
    return isinstance(network, FSDPModule)


@contextlib.contextmanager
def generating(trainer: Any, network: nn.Module) -> Iterator[None]:
    """Let a network in training write text inside the ``with`` block.

    The network runs eagerly, since it would be compiled again for every length of the growing text. A sharded
    network runs under the precision of training, in which its blocks gather their weights. A sharded
    encoder-decoder is gathered as a whole instead, so that each process can translate other sentences; all
    processes must enter and leave together.
    """
    with torch.compiler.set_stance("force_eager"), contextlib.ExitStack() as contexts:
        if is_sharded(network):
            contexts.enter_context(trainer.precision_plugin.forward_context())
            if isinstance(network, EncoderDecoder):
                contexts.enter_context(_gathered(network))
        yield


@contextlib.contextmanager
def _gathered(network: nn.Module) -> Iterator[None]:
    """Keep all weights of a sharded network whole on every process inside the ``with`` block."""
    parts = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not network, recurse=False)
            part.reshard()
        _forget_forward_passes(network)


def _forget_forward_passes(network: nn.Module) -> None:
    """Let the next backward pass gather weights in the order of its own forward pass.

    torch notes every forward pass, also without gradients, and gathers weights ahead in the backward pass by
    these notes. Processes that have translated unlike numbers of sentences would gather in unlike orders, and
    wait for one another forever.
    """
    noted: list[Any] = cast(Any, network)._get_fsdp_state()._comm_ctx.post_forward_order
    for group in noted:
        group._post_forward_indices.clear()
    noted.clear()


@torch.no_grad()
def build_in_parts(build: Callable[[], _Network], mesh: DeviceMesh, trainer: Any) -> _Network:
    """A network sharded by :func:`shard_network`, with the initial values that a single process would draw.

    The first process draws them, in main memory, and broadcasts them tensor by tensor; each takes its part.
    ``build`` makes the whole network; on the meta device it draws no values.
    """
    strategy = trainer.strategy
    with torch.device("meta"):
        network = build()
    shard_network(network, mesh, trainer.precision)
    values = build().state_dict() if strategy.is_global_zero else {}
    # The other processes have drawn nothing, but must continue with the same random state.
    torch.set_rng_state(strategy.broadcast(torch.get_rng_state()))
    network.to_empty(device=strategy.root_device)
    orders = row_orders(network)
    for name, part in network.state_dict().items():
        value = torch.empty(part.shape, dtype=part.dtype, device=part.device)
        if strategy.is_global_zero:
            value.copy_(values.pop(name))
        distributed.broadcast(value, 0)
        local(part).copy_(local(part_like(value, part, orders.get(name))))
    return network


def num_replicas(trainer: Any) -> int:
    """Number of processes, or groups of processes, that read different samples."""
    return int((trainer.distributed_sampler_kwargs or {"num_replicas": 1})["num_replicas"])


def replica_rank(trainer: Any) -> int:
    """Number of this process's replica; the processes of a tensor-parallel group have the same."""
    return int((trainer.distributed_sampler_kwargs or {"rank": 0})["rank"])


def sum_over_replicas(tensor: torch.Tensor, trainer: Any) -> torch.Tensor:
    """Sum of ``tensor`` over the replicas; every process must call this at the same time."""
    if trainer.world_size == 1:
        return tensor
    total: torch.Tensor = trainer.strategy.reduce(tensor.clone(), reduce_op="sum")  # works in place
    processes_each: int = trainer.world_size // num_replicas(trainer)
    return total / processes_each if total.is_floating_point() else total // processes_each


_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true", "64-true")


class FSDP2Strategy(ModelParallelStrategy):
    """Fully sharded data parallelism, with tensor parallelism as a second dimension.

    Unlike Lightning's own strategy it writes one file, as a single process would, so a run can be resumed
    with another number of processes or another strategy. Gradients are averaged at every micro-batch of an
    accumulation, since deferring that would need memory for whole gradients.

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
        require_number("tensor_parallel_size", tensor_parallel_size, 1, whole=True, at_least=1)
        if data_parallel_size != "auto":
            require_number("data_parallel_size", data_parallel_size, 1, whole=True, at_least=1)
        in_parts = False  # whether a checkpoint is a folder with a file of each process
        super().__init__(data_parallel_size, tensor_parallel_size, in_parts, process_group_backend, timeout)

    def setup_environment(self) -> None:
        precision = self.precision_plugin.precision
        if precision not in _PRECISIONS:
            remedy = f"use {', '.join(_PRECISIONS[:-1])} or {_PRECISIONS[-1]}"
            problem = "strategy fsdp2 cannot train so"
            raise ConfigError(problem, remedy, option="trainer.precision", value=precision)
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

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: Lightning calls :meth:`load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights, gathered, on the first process; an empty dict on the others."""
        return self._gathered(self._module.state_dict(), row_orders(self._module))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole optimizer state on the first process; the state without tensors on the others."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        state = optimizer.state_dict()
        gathered = {}
        orders_of = row_orders_by_parameter(self._module)
        for number, parameter in _numbered_parameters(state, optimizer):
            if number in state["state"]:
                kept, order = state["state"][number], orders_of.get(parameter)
                orders = {name: order for name, value in kept.items() if _is_like(value, parameter)}
                gathered[number] = self._gathered(kept, orders)
        return {**state, "state": gathered}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give every process its part of the weights."""
        own, orders = self._module.state_dict(), row_orders(self._module)
        parts = {
            name: part_like(tensor, own[name], orders.get(name)) if name in own else tensor
            for name, tensor in checkpoint["state_dict"].items()
        }
        self._module.load_state_dict(parts, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give every process its part of the optimizers' state."""
        orders_of = row_orders_by_parameter(self._module)
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

    # The first process writes the file, through the Trainer's ``checkpoint_io``, and every process reads it.
    save_checkpoint = ParallelStrategy.save_checkpoint
    load_checkpoint = ParallelStrategy.load_checkpoint

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

    @property
    def _module(self) -> LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    def on_validation_end(self) -> None:
        """Free weights that a forward pass without a backward pass has left gathered."""
        for module in self._module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

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
                problem = (
                    f"{type(optimizer).__name__} keeps {name!r} of shape {tuple(value.shape)} for weights"
                )
                problem += f" of shape {tuple(parameter.shape)}: strategy fsdp2 cannot cut it"
                raise CheckpointError(problem, "resume with --trainer.strategy ddp")


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
