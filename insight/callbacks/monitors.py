"""Callbacks that log memory and statistics of gradients and activations, and that profile steps."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.hooks import RemovableHandle

from insight.callbacks.trainer import is_trial, run_folder_of
from insight.runtime.errors import ConfigError
from insight.runtime.files import atomic_write_text, writing_to
from insight.runtime.memory_watcher import MemoryThresholds, process_watcher
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.runtime.resources import peak_resident_bytes, resident_bytes
from insight.runtime.sharded_tensors import whole
from insight.training.lightning_internals import logs_this_batch, step_completed
from insight.training.optimizers import parameter_groups


class MemoryMonitor(Callback):
    """Logs memory use, and shrinks caches when memory is short.

    Every logged step has ``memory/resident_bytes`` and ``memory/peak_bytes``: on CUDA the memory that torch
    has allocated on the device, elsewhere that of the process, and ``memory/limit_share``, the used fraction
    of the tightest limit of machine, containers and address space. Once caches were halved or emptied,
    ``memory/num_shrinks`` and ``memory/num_clears`` say how often since the process started, and
    ``memory/work_share`` is the share of the usual amount of text that is encoded at once. Training batches
    are never changed, since the weights would then depend on the machine.

    Args:
        relax: Share of the limit below which memory is plentiful again.
        shrink: Share from which on caches are halved at every check, and texts encoded in smaller batches.
        clear: Share from which on caches are emptied.
    """

    def __init__(self, relax: float = 0.75, shrink: float = 0.85, clear: float = 0.95) -> None:
        for name, share in (("relax", relax), ("shrink", shrink), ("clear", clear)):
            require_number(name, share, "0.75, 0.85 and 0.95", above=0, at_most=1)
        self.thresholds = MemoryThresholds(relax, shrink, clear)
        self._watching = contextlib.ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._watching.close()
        if stage == "fit":
            watcher = process_watcher()
            self._watching.callback(setattr, watcher, "thresholds", watcher.thresholds)
            watcher.thresholds = self.thresholds
            self._watching.enter_context(watcher.watching())

    def teardown(self, *_: Any, **__: Any) -> None:
        self._watching.close()

    on_exception = teardown

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not logs_this_batch(trainer):
            return
        device, watcher = trainer.strategy.root_device, process_watcher()
        if device.type == "cuda":
            resident, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        else:
            resident, peak = resident_bytes(), peak_resident_bytes()
        values = {"resident_bytes": float(resident), "peak_bytes": float(peak)}
        if watcher.newest is not None:
            values["limit_share"] = watcher.newest.share
        if watcher.num_events:  # logging costs a tenth of a millisecond, and most runs have no events
            values |= {
                "num_shrinks": float(watcher.num_events["shrink"]),
                "num_clears": float(watcher.num_events["clear"]),
                "work_share": watcher.work_share,
            }
        pl_module.log_dict({f"memory/{name}": value for name, value in values.items()}, batch_size=1)


class ModelStatistics(Callback):
    """Logs norm, root mean square, largest magnitude and share of zeros of gradients and activations.

    The names are ``gradient/<group>/norm``, ``.../rms``, ``.../max`` and ``.../zeros``, and
    ``activation/<layer>/...`` for the output of each layer. Gradients are those that the optimizer used,
    after clipping; activations are those of the first micro-batch of the step on the first process. Hooks
    are attached only at the measured steps and draw no random number: training is bit for bit the same.

    A compiled network does not show its activations; set ``model.compile`` to ``off`` to see them.

    Args:
        every_n_steps: Number of optimizer steps between two measurements.
        by: Gradients of each ``layer``, or of all parameters of one ``role`` (embedding, hidden, head...).
        activations: Whether to measure activations too.
    """

    def __init__(
        self, every_n_steps: int = 100, by: Literal["layer", "role"] = "layer", activations: bool = True
    ) -> None:
        require_number("every_n_steps", every_n_steps, 100, whole=True, at_least=1)
        if by not in ("layer", "role"):
            raise ConfigError("is neither layer nor role", "use layer or role", option="by", value=by)
        self.every_n_steps, self.by, self.activations = every_n_steps, by, activations
        self._hooks: list[RemovableHandle] = []
        self._sizes: dict[str, torch.Tensor] = {}
        self._looked_at = -1
        self._told_compiled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._looked_at = -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if self.activations and self._is_due(step) and step != self._looked_at:
            self._looked_at = step
            self._sizes = {}
            for name, layer in layers_of(_network(pl_module)).items():
                measure = functools.partial(self._measure, name)
                self._hooks.append(layer.register_forward_hook(measure))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        attached = bool(self._hooks)
        self.on_exception()
        if attached and not self._sizes and not self._told_compiled:
            self._told_compiled = True
            say("ModelStatistics: the network runs compiled, so its activations cannot be seen")
        if not (step_completed(trainer) and self._is_due(trainer.global_step - 1)):
            return
        sizes = {f"activation/{layer}": found for layer, found in self._sizes.items()}
        for group, parameters in self._groups(_network(pl_module)).items():
            sizes[f"gradient/{group}"] = _sizes([p.grad for p in parameters if p.grad is not None])
        values = {f"{key}/{name}": n for key, found in sizes.items() for name, n in _shown(found).items()}
        self._sizes = {}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    def on_exception(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _is_due(self, step: int) -> bool:
        return (step + 1) % self.every_n_steps == 0

    def _measure(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        is_real = not torch.compiler.is_compiling() and isinstance(output, torch.Tensor)
        if is_real and output.is_floating_point():
            self._sizes[name] = _sizes([output.detach()])

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
    """The layers of a network by name: its children, and each element of a module list (``blocks.0``)."""
    layers: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            layers |= {f"{name}.{index}": part for index, part in enumerate(child)}
        else:
            layers[name] = child
    return layers


@torch.no_grad()
def _sizes(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Number of elements, sum of squares, largest magnitude and number of zeros: float64 ``(4,)``."""
    total = torch.zeros(4, dtype=torch.float64)
    for tensor in tensors:
        if not tensor.numel():
            continue
        norm = torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
        # Each process holds only its part of a sharded tensor.
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
    rms = math.sqrt(squares / count)
    return {"norm": math.sqrt(squares), "rms": rms, "max": largest, "zeros": zeros / count}


def _network(module: LightningModule) -> nn.Module:
    return cast(nn.Module, getattr(module, "network", module))


_NAME_COLUMN = 60


class StepProfiler(Callback):
    """Profiles a few optimizer steps of the first process with ``torch.profiler``.

    It writes to ``profile/`` in the run folder: ``trace.json.gz``, for chrome://tracing or
    https://ui.perfetto.dev, and ``operations.txt``, the operations sorted by their own time, without that of
    the operations they call. The profiled steps are slower, but compute the same.

    Args:
        start_step: Number of optimizer steps to skip first, which compile and choose kernels.
        num_steps: Number of optimizer steps to profile.
        num_operations: Number of rows of the table.
        record_shapes: Whether to distinguish operations by the shapes of their inputs.
        profile_memory: Whether to record the memory that operations allocate.
    """

    def __init__(
        self,
        start_step: int = 10,
        num_steps: int = 3,
        num_operations: int = 30,
        record_shapes: bool = False,
        profile_memory: bool = False,
    ) -> None:
        require_number("start_step", start_step, 10, whole=True, at_least=0)
        require_number("num_steps", num_steps, 3, whole=True, at_least=1)
        require_number("num_operations", num_operations, 30, whole=True, at_least=1)
        self.start_step, self.num_steps, self.num_operations = start_step, num_steps, num_operations
        self.record_shapes, self.profile_memory = record_shapes, profile_memory
        self._profile: profile | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_step = trainer.global_step + self.start_step
        self._done = is_trial(trainer) or not trainer.is_global_zero

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._done or self._profile is not None or trainer.global_step < self._first_step:
            return
        activities = [ProfilerActivity.CPU]
        if trainer.strategy.root_device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._first_step = trainer.global_step
        # Without this, the profiler's library (Kineto) prints its start and end on stderr.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        options: Any = {"record_shapes": self.record_shapes, "profile_memory": self.profile_memory}
        self._profile = profile(activities=activities, **options)
        self._profile.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        last = self._first_step + self.num_steps
        if self._profile is not None and step_completed(trainer) and trainer.global_step >= last:
            self._finish(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._profile is not None:
            self._finish(trainer)

    def on_exception(self, *_: Any) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _finish(self, trainer: Trainer) -> None:
        assert self._profile is not None
        found, self._profile, self._done = self._profile, None, True
        found.stop()
        folder = run_folder_of(trainer).profile
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # A copied run may share the file with the original.
            (folder / "trace.json.gz").unlink(missing_ok=True)
            found.export_chrome_trace(str(folder / "trace.json.gz"))
        device = "cuda" if trainer.strategy.root_device.type == "cuda" else "cpu"
        table = found.key_averages(group_by_input_shape=self.record_shapes).table(
            sort_by=f"self_{device}_time_total",
            row_limit=self.num_operations,
            max_name_column_width=_NAME_COLUMN,
        )
        steps = trainer.global_step - self._first_step
        head = f"Steps {self._first_step} to {trainer.global_step - 1}, torch {torch.__version__}\n\n"
        atomic_write_text(folder / "operations.txt", head + table + "\n")
        say(f"profile of {steps} step{'' if steps == 1 else 's'}: {folder}")
