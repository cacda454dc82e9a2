"""One optimizer step: loss, totals of the window, rescaling, guard, clipping, learning rate, update."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from insight.checkpoints.format import CheckpointContent
from insight.models import Router, row_orders
from insight.runtime.errors import DataError
from insight.runtime.seeding import begin_stream_of_process, capture_random_states, restore_random_states
from insight.runtime.sharded_tensors import local, part_like, whole
from insight.training.guards import Guard, StepGuard, num_samples_of
from insight.training.lightning_internals import forget_older_values, logs_this_step
from insight.training.losses import LinearCrossEntropy
from insight.training.parallel import num_replicas, replica_rank, sum_over_replicas


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Euclidean norm of all gradients together: a scalar, the same on every process.

    Every process that holds a part of the gradients must call this at the same time.
    """
    # By the mesh that they are sharded over and its sharding dimensions; None if they are whole.
    by_cut: dict[tuple[DeviceMesh, tuple[int, ...]] | None, list[torch.Tensor]] = {}
    for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
        cut = None
        if isinstance(gradient, DTensor):
            placed = enumerate(gradient.placements)
            cut = gradient.device_mesh, tuple(dim for dim, place in placed if not place.is_replicate())
        by_cut.setdefault(cut, []).append(local(gradient))
    norms = []
    for cut, parts in by_cut.items():
        norm = nn.utils.get_total_norm(parts)
        if cut is not None:
            square = norm.to(torch.promote_types(norm.dtype, torch.float32)).square()
            for dim in cut[1]:
                distributed.all_reduce(square, group=cut[0].get_group(dim))
            norm = square.sqrt()
        norms.append(norm)
    if len(norms) == 1:
        return norms[0]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


class TrainingStep:
    """The optimizer steps of a run, and all of their state.

    :class:`insight.training.module.TrainingModule` calls :meth:`begin_run` once; :meth:`begin_micro_batch`
    and, after the loss, :meth:`add` at each micro-batch, whose gradients Lightning then computes; and
    :meth:`finish` at each step, before Lightning lets the optimizer update.
    """

    def __init__(self, module: Any, guard: Guard) -> None:
        self.guard = StepGuard(guard)
        self._module = module
        self._window: AccumulationWindow | None = None
        # The state of a checkpoint until the first micro-batch begins.
        self._restored_random_states: list[dict[str, Any]] | None = None
        self._restored_window: dict[str, Any] | None = None

    def begin_run(self) -> None:
        """Drop the window of an interrupted run, and give every process its own random numbers."""
        self._window = None
        self._expert_load = ExpertLoad(self._module.network)
        if self._restored_random_states is None:
            begin_stream_of_process(replica_rank(self._module.trainer))

    def begin_micro_batch(self) -> None:
        """Restore the state of a checkpoint right before it is used; roll back if the guard says so."""
        trainer = self._module.trainer
        forget_older_values(trainer)
        self.guard.roll_back_if_due(trainer)
        if self._restored_random_states is not None:
            place = trainer.global_rank, trainer.world_size, replica_rank(trainer)
            restore_random_states(self._restored_random_states, *place)
            self._restored_random_states = None
        if self._restored_window is not None:
            self._window = AccumulationWindow.restore(self._restored_window, self._module.network, trainer)
            self._restored_window = None

    def add(self, summed: LinearCrossEntropy, batch: Any) -> torch.Tensor:
        """Add a micro-batch and its summed loss to the totals of the window.

        The result is the scalar to differentiate, scaled so that the gradients of the window add up.
        """
        if self._window is None:
            # The ranks must have the same divisor, and their pairs of sentences have different lengths.
            divisor = getattr(batch, "num_samples_global", batch.targets.numel())
            self._window = AccumulationWindow(divisor, batch.targets.device)
        routed = self._expert_load.collect()
        if routed is not None:
            penalty, counts = routed
            before = self._window.expert_counts
            self._window.expert_counts = counts if before is None else before + counts
            summed = summed._replace(loss=summed.loss + penalty * summed.num_valid)
        if self.guard.config.judges_every_step:
            self._window.batches.append(batch)
        # Before any callback can save, since the position in a checkpoint must be after this batch.
        trainer = self._module.trainer
        trainer.datamodule.advance(num_samples_of(batch, num_replicas(trainer)))
        return self._window.add(summed)

    def finish(self, optimizer: torch.optim.Optimizer, clip_to: float | None, by_value: bool) -> None:
        """Turn the gradients of the window into those of the step, and prepare the optimizer's update.

        The optimizer's groups have their full learning rate as ``initial_lr``. Norm or, ``by_value``, single
        values are clipped to ``clip_to``, unless that is ``None`` or 0. The guard may end the run.

        Raises:
            DataError: No token of the step has a valid target.
        """
        module, trainer, window = self._module, self._module.trainer, self._window
        assert window is not None
        self._window = None
        parameters = list(module.network.parameters())
        gradients = [local(p.grad) for p in parameters if p.grad is not None]
        logs, judges_all = logs_this_step(trainer), self.guard.config.judges_every_step
        limit = clip_to or math.inf

        # Totals of the window, over all processes.
        nll, num_valid = window.totals(trainer)
        if num_valid.device.type == "cpu" and not num_valid:
            problem = f"no token of step {trainer.global_step} has a target that counts"
            raise DataError(problem, "look at what the training text holds")
        loss = nll / num_valid
        if self.guard.config.non_finite == "stop" or torch.isfinite(loss):  # not of a step to be skipped
            module.log("train/loss", loss, prog_bar=True)

        # Rescale the gradient to that of the mean over all valid tokens.
        factor = window.gradient_factor(num_valid, trainer)
        if factor.device.type != "cpu" or factor != 1:
            torch._foreach_mul_(gradients, factor)

        # The norm before clipping is computed once, for guard, clipping and log.
        norm: torch.Tensor | None = None
        if logs or judges_all or (limit < math.inf and not by_value):
            norm = gradient_norm(parameters)
        if self.guard.admits(loss, norm, module, window.batches, logs):
            if logs and norm is not None:
                module.log("train/gradient_norm", norm)
            if by_value and limit < math.inf:
                torch._foreach_clamp_min_(gradients, -limit)
                torch._foreach_clamp_max_(gradients, limit)
            # On a CPU the comparison is free and saves a multiplication by 1.
            elif norm is not None and not by_value and (norm.device.type != "cpu" or norm > limit):
                torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp_max(1.0))
            load = self._expert_load.finish_step(window.expert_totals(trainer))
            if logs:
                module.log_dict({f"train/{name}": value for name, value in load.items()})
        else:  # an optimizer does not change weights without a gradient, nor their state
            module.network.zero_grad()

        # Learning rate.
        groups = optimizer.param_groups
        multiplier = module.schedule.multiplier(trainer.global_step, module.num_planned_steps)
        for group in groups:
            group["lr"] = group["initial_lr"] * multiplier
        if logs:
            main = next((group for group in groups if group.get("role") == "hidden"), groups[0])
            module.log("train/learning_rate", main["lr"])

        # Update: Lightning calls optimizer.step() now.

    def state_dict(self) -> dict[str, Any]:
        """The fields of :class:`CheckpointContent` that are its own; every process must call this."""
        window = self._window
        return {
            "random_states": capture_random_states(),
            "guard": self.guard.state_dict(),
            "open_window": window and window.state_dict(self._module.network, self._module.trainer),
        }

    def load_content(self, saved: CheckpointContent) -> None:
        """Take what :meth:`state_dict` returned; the next :meth:`begin_micro_batch` restores it."""
        self._restored_random_states, self._restored_window = saved.random_states, saved.open_window
        if saved.guard is not None:  # old checkpoints contain none
            self.guard.load_state_dict(saved.guard)


class AccumulationWindow:
    """Sums over the micro-batches between two optimizer steps, on one process.

    All summed losses of a window are divided by ``divisor``, so that their gradients add up;
    :meth:`gradient_factor` corrects for it. The number of targets of the first micro-batch is a good scale
    for 16-bit types, and needs no correction without accumulation and ignored targets; it has to be the same
    on every process.
    """

    def __init__(self, divisor: int, device: torch.device) -> None:
        self.divisor = divisor
        self.negative_log_likelihood = torch.zeros((), device=device)
        self.num_valid = torch.zeros((), dtype=torch.int64, device=device)
        self.expert_counts: torch.Tensor | None = None  # int64 (experts of all routers,)
        self.batches: list[Any] = []  # if the guard may need to record them

    def add(self, summed: LinearCrossEntropy) -> torch.Tensor:
        """Add a micro-batch, and return the scalar to differentiate."""
        self.negative_log_likelihood += summed.negative_log_likelihood
        self.num_valid += summed.num_valid
        return summed.loss / self.divisor

    def expert_totals(self, trainer: Any) -> torch.Tensor | None:
        """The counts of each expert over all processes."""
        return None if self.expert_counts is None else sum_over_replicas(self.expert_counts, trainer)

    def totals(self, trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed negative log-likelihood and number of valid tokens over all processes."""
        counts = torch.stack([self.negative_log_likelihood, self.num_valid.to(torch.float32)])
        nll, num_valid = sum_over_replicas(counts, trainer)
        return nll, num_valid

    def gradient_factor(self, num_valid: torch.Tensor, trainer: Any) -> torch.Tensor:
        """The factor that turns the gradient into that of the mean over ``num_valid`` tokens, if any.

        Lightning has divided the losses by the number of micro-batches, and DDP and FSDP2 have averaged over
        the replicas.
        """
        factor: int = self.divisor * trainer.accumulate_grad_batches * num_replicas(trainer)
        return factor / num_valid.clamp_min(1)

    def state_dict(self, network: nn.Module, trainer: Any) -> dict[str, Any]:
        """The state of an unfinished window: the sums, and the mean of the gradients over all processes.

        Only the first process, which writes the file, keeps the gradients.
        """
        nll, num_valid = self.totals(trainer)
        orders = row_orders(network)
        gradients = {}
        for name, parameter in network.named_parameters():
            gradient = parameter.grad
            if gradient is None:
                continue
            if isinstance(gradient, DTensor):  # each part is already the mean over the replicas
                gradient = whole(gradient, orders.get(name))
            elif trainer.world_size > 1:
                gradient = trainer.strategy.reduce(gradient.clone(), reduce_op="mean")
            if trainer.is_global_zero:  # one by one, so that no device holds them all
                gradients[name] = gradient.to("cpu", copy=True)
        return {
            "divisor": self.divisor,
            "accumulation": trainer.accumulate_grad_batches,
            "replicas": num_replicas(trainer),
            "negative_log_likelihood": nll,
            "num_valid": num_valid,
            "gradients": gradients,
            "expert_counts": self.expert_totals(trainer),
        }

    @classmethod
    def restore(cls, state: dict[str, Any], network: nn.Module, trainer: Any) -> AccumulationWindow:
        """Restore the gradients and return the window, with the sums only on the first replica."""
        is_first = replica_rank(trainer) == 0
        parameters = dict(network.named_parameters())
        device = next(iter(parameters.values())).device
        window = cls(state["divisor"], device)
        if is_first:
            window.negative_log_likelihood += state["negative_log_likelihood"].to(device)
            window.num_valid += state["num_valid"].to(device).to(torch.int64)
        counts = state.get("expert_counts")
        if counts is not None:
            counts = counts.to(device)
            window.expert_counts = counts if is_first else torch.zeros_like(counts)
        # The number of micro-batches and of replicas may have changed since the checkpoint was saved.
        replicas = num_replicas(trainer)
        factor = state["accumulation"] / trainer.accumulate_grad_batches
        factor *= state.get("replicas", replicas) / replicas
        orders = row_orders(network)
        for name, gradient in state["gradients"].items():
            part = part_like(gradient, parameters[name], orders.get(name))
            parameters[name].grad = part * factor
        return window


class ExpertLoad:
    """Mixtures of experts in a step: the balance loss, the biases that follow the load, and logged values.

    The balance loss is that of each micro-batch of each process. It is not a sum over tokens, so accumulation
    and several processes are not equivalent to one large batch. The biases follow the counts of the whole
    optimizer step.
    """

    def __init__(self, network: nn.Module) -> None:
        self.routers = [module for module in network.modules() if isinstance(module, Router)]
        self._balance: list[torch.Tensor] = []

    def collect(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The penalty for the mean loss of a token and counts ``(experts of all routers,)`` of the last pass.

        ``None`` without routers.
        """
        routed = [(router, result) for router in self.routers if (result := router.take()) is not None]
        if not routed:
            return None
        self._balance = [result.balance.detach() for _, result in routed]
        penalty = torch.zeros_like(routed[0][1].balance)
        for router, result in routed:
            if router.balance is not None and router.balance.loss_coefficient:
                penalty = penalty + router.balance.loss_coefficient * result.balance
        return penalty, torch.cat([result.counts for _, result in routed])

    def finish_step(self, counts: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Move the biases by the counts of :meth:`collect`, summed over the step, and describe the load.

        ``router_balance`` is the mean over routers of the balance loss of the last micro-batch, 1 if even;
        the others are the load of the most and the least used expert, in multiples of an even share.
        """
        if counts is None:
            return {}
        loads = []
        parts = torch.split(counts, [router.num_experts for router in self.routers])
        for router, part in zip(self.routers, parts, strict=True):
            router.move_bias(part)
            loads.append(part / part.sum().clamp_min(1) * router.num_experts)
        low, high = torch.cat(loads).aminmax()
        balance = torch.stack(self._balance).mean()
        return {"router_balance": balance, "expert_load_highest": high, "expert_load_lowest": low}
