"""Checks models and quantizes copies of them by one method."""

from __future__ import annotations

import copy
import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import nn

from insight.checkpoints import LoadedCheckpoint
from insight.checkpoints.artifact import write_artifact
from insight.models import Decoder, DecoderConfig, GroupedQueryAttention, SwiGLU
from insight.models.compilation import compile_network, is_compiled
from insight.optimization.measurement.footprint import weight_bytes
from insight.optimization.measurement.quality import Calibration
from insight.optimization.methods import KeptModule, QuantizationMethod, find_method
from insight.runtime.errors import ConfigError, did_you_mean
from insight.runtime.hardware import compiler_path

if TYPE_CHECKING:
    from insight.optimization.config import QuantizationConfig

Target = Literal["cpu-x86", "cpu-arm", "cuda", "mobile"]
TARGETS: tuple[str, ...] = get_args(Target)

_WRAPPED = "pass the network itself: module.network, or the .module of a wrapper"
_PROBE_WIDTH, _PROBE_VOCABULARY = 32, 16
_X86 = ("x86_64", "amd64", "i386", "i686")


def this_target(device: torch.device | str = "cpu") -> str:
    """The target of a device of this machine: one of ``TARGETS``, or the device type."""
    kind = torch.device(device).type
    if kind != "cpu":
        return kind
    return "cpu-x86" if platform.machine().lower() in _X86 else "cpu-arm"


@dataclass(frozen=True)
class Incompatibility:
    """Why a model cannot be quantized, with the name of the module or tool, and advice to the user."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class OptimizationReport:
    """The changes to a model, without measurements: the names of the converted modules, and the others.

    Weights are counted in bytes before and after, with scales and zero points. Notes tell other facts, such
    as the observer and the calibration text.
    """

    modules_quantized: tuple[str, ...]
    modules_kept: tuple[KeptModule, ...]
    weight_bytes_before: int
    weight_bytes_after: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptimizedModel:
    """A quantized model with the configuration that made it and the changes.

    The checkpoint is compiled if configured; its metadata contain the options under ``"quantization"``, so
    that no model is quantized twice.
    """

    checkpoint: LoadedCheckpoint
    config: QuantizationConfig
    report: OptimizationReport


def save_artifact(
    model: OptimizedModel, folder: Path | str, extra_files: Mapping[str, str] | None = None
) -> None:
    """Write a quantized model as a new folder, which appears complete or not at all.

    ``extra_files`` are the texts of files to write beside it, by name.

    Raises:
        OutputError: The folder exists or cannot be written.
    """
    report = dataclasses.asdict(model.report)
    write_artifact(model.checkpoint, model.config, report, Path(folder), extra_files or {})


class Quantizer:
    """The built form of :class:`QuantizationConfig`."""

    def __init__(self, config: QuantizationConfig) -> None:
        self.config = config
        self.method = find_method(config.method)

    def check(self, model: LoadedCheckpoint, target: str | None = None) -> list[Incompatibility]:
        """All reasons why the model cannot be quantized for a target, found in well under a second.

        The target is the kind of machine that the result will run on; ``None`` for that of the model.

        Raises:
            ConfigError: The target is unknown.
        """
        network = model.network
        if not isinstance(network, Decoder):
            return [Incompatibility(f"the network is wrapped in a {type(network).__name__}", _WRAPPED)]
        problems = [*_state_problems(model), *self._machine_problems(network, target)]
        if problems:
            return problems
        name, selection = self.config.method, self.method.select(network, self.config)
        if not selection.quantized:
            kept = selection.kept[-1]
            reason = f"{name} would quantize nothing ({kept.name}: {kept.reason})"
            return [Incompatibility(reason, "use another method or group_size")]
        problem = _kernel_problem(self.method, self.config, network.embedding.weight.device)
        return (
            [Incompatibility(f"{name} does not run here: {problem}", "use another method")] if problem else []
        )

    def apply(self, model: LoadedCheckpoint, calibration: Calibration | None = None) -> OptimizedModel:
        """Make a quantized copy of the model, which shares no weight with the original.

        Raises:
            ConfigError: :meth:`check` finds a problem, or a needed calibration is missing or does not fit.
        """
        for found in self.check(model):
            raise ConfigError(f"{self.config.name}: {found.reason}", found.remedy)
        if calibration is not None:
            calibration.require_tokenizer(model.tokenizer.fingerprint())
        elif self.method.needs_calibration:
            problem = f"{self.config.method}: needs training text to calibrate on"
            raise ConfigError(problem, "pass a Calibration")
        with torch.no_grad():
            network = copy.deepcopy(model.network).eval().requires_grad_(False)
            network.to(self.method.dtype(self.config))
            selection = self.method.select(network, self.config)
            self.method.convert(network, selection, self.config, calibration)
        if self.config.compile:
            compile_network(network)
        notes = []
        if self.method.needs_calibration and calibration is not None:
            rows, length = calibration.windows.shape
            text = f"{rows} windows of {length} tokens of training text"
            notes.append(f"activation ranges: AffineQuantizedMinMaxObserver on {text}")
        sizes = (weight_bytes(model.network), weight_bytes(network))
        report = OptimizationReport(tuple(selection.quantized), selection.kept, *sizes, tuple(notes))
        metadata = {**model.metadata, "quantization": self.config.to_dict()["init_args"]}
        checkpoint = dataclasses.replace(model, network=network, metadata=metadata)
        return OptimizedModel(checkpoint, self.config, report)

    def _machine_problems(self, network: Decoder, target: str | None) -> list[Incompatibility]:
        here = this_target(network.embedding.weight.device)
        target = here if target is None else target
        if target not in TARGETS:
            remedy = did_you_mean(target, TARGETS, f"use one of {', '.join(TARGETS)}")
            raise ConfigError("is unknown", remedy, option="target", value=target)
        problems = []
        if target != here:
            reason = f"target {target}: the model is on {here}, and what runs there is only known there"
            remedy = f"quantize on {target}" if target != "mobile" else "there is no exporter for it yet"
            problems.append(Incompatibility(reason, remedy))
        if self.config.compile and here.startswith("cpu") and compiler_path() is None:
            reason = "compile: no C++ compiler, or torch lies under a path with a space"
            problems.append(Incompatibility(reason, "install g++ with Python's headers, or turn compile off"))
        return problems


def _state_problems(model: LoadedCheckpoint) -> list[Incompatibility]:
    network, done = model.network, model.metadata.get("quantization")
    if done:
        reason = f"the model is quantized already ({done['method']})"
        return [Incompatibility(reason, "name the checkpoint that it was made from")]
    if is_compiled(network):
        return [Incompatibility("the network is compiled", "load it again from its checkpoint")]
    problems = []
    for name, parameter in network.named_parameters():
        if type(parameter) is not nn.Parameter:
            reason = f"{name} is a {type(parameter).__name__}, not a plain parameter"
            problems.append(Incompatibility(reason, _WRAPPED))
        elif not torch.isfinite(parameter).all():
            reason = f"{name} holds NaN or infinity"
            problems.append(Incompatibility(reason, "use an earlier checkpoint of the run"))
    return problems


def _kernel_problem(
    method: QuantizationMethod, config: QuantizationConfig, device: torch.device
) -> str | None:
    """Quantize a tiny network and generate with it; return the first line of an error, or ``None``.

    Compiling is not tried, since it takes seconds; the existence of a compiler is checked separately.
    """
    width = _PROBE_WIDTH if config.group_size is None else config.group_size * 4
    attention, feed_forward = GroupedQueryAttention(num_heads=2), SwiGLU(intermediate_size=width)
    shape = DecoderConfig(hidden_size=width, num_layers=1, attention=attention, feed_forward=feed_forward)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():  # keep the caller's random state
        network = shape.build(_PROBE_VOCABULARY).to(device).eval()
        windows = np.zeros((1, 4), dtype=np.int64)
        try:
            network.to(method.dtype(config))
            method.convert(network, method.select(network, config), config, Calibration(windows, ""))
            cache = network.make_cache(2)
            for num_tokens in (4, 1):
                ids = torch.zeros(2, num_tokens, dtype=torch.int64, device=device)
                scores = network.logits(network(ids, cache=cache)[:, -1])
        except (RuntimeError, NotImplementedError, AssertionError, ValueError, TypeError) as error:
            return (str(error).splitlines() or [type(error).__name__])[0][:200]
    return None if bool(torch.isfinite(scores).all()) else "its scores are not finite"
