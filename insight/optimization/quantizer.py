"""Checks and quantizes models by one method; the model passed in is never changed."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import nn

from insight.checkpoints import LoadedCheckpoint
from insight.models import Decoder
from insight.optimization.calibration import Calibration
from insight.optimization.config import QuantizationConfig
from insight.optimization.execution import compile_network, is_compiled
from insight.optimization.measurement.footprint import weight_bytes
from insight.optimization.methods import find_method
from insight.optimization.optimizer import Incompatibility, ModelOptimizer, OptimizedModel
from insight.optimization.probe import kernel_problem
from insight.optimization.report import OptimizationReport
from insight.optimization.target import TARGETS, this_target
from insight.runtime.errors import ConfigError, nearest
from insight.runtime.hardware import compiler_path

_WRAPPED = "pass the network itself: module.network, or the .module of a wrapper"


class Quantizer(ModelOptimizer):
    """The built form of :class:`QuantizationConfig`.

    Args:
        config: What to do.
    """

    def __init__(self, config: QuantizationConfig) -> None:
        self.config = config
        self.method = find_method(config.method)

    def check(self, model: LoadedCheckpoint, target: str | None = None) -> list[Incompatibility]:
        network = model.network
        if not isinstance(network, Decoder):
            return [Incompatibility(f"the network is wrapped in a {type(network).__name__}", _WRAPPED)]
        problems = [*_state_problems(model), *self._machine_problems(network, target)]
        if not problems and not self.method.select(network, self.config).quantized:
            kept = self.method.select(network, self.config).kept
            problems.append(
                Incompatibility(
                    f"{self.config.method} would quantize nothing ({kept[-1].name}: {kept[-1].reason})",
                    "use another method or group_size",
                )
            )
        if not problems:
            reason = kernel_problem(self.method, self.config, network.embedding.weight.device)
            if reason is not None:
                problems.append(
                    Incompatibility(f"{self.config.method} does not run here: {reason}", "use another method")
                )
        return problems

    def apply(self, model: LoadedCheckpoint, calibration: Calibration | None = None) -> OptimizedModel:
        for problem in self.check(model):
            raise ConfigError(f"{self.config.name}: {problem.reason}", problem.remedy)
        if calibration is not None:
            calibration.require_tokenizer(model.tokenizer.fingerprint())
        elif self.method.needs_calibration:
            raise ConfigError(
                f"{self.config.method}: needs training text to calibrate on", "pass a Calibration"
            )
        with torch.no_grad():
            network = copy.deepcopy(model.network).eval().requires_grad_(False)
            network.to(self.method.dtype(self.config))
            selection = self.method.select(network, self.config)
            self.method.convert(network, selection.quantized, self.config, calibration)
        if self.config.compile:
            compile_network(network)
        report = OptimizationReport(
            tuple(selection.quantized),
            selection.kept,
            weight_bytes(model.network),
            weight_bytes(network),
            self._notes(calibration),
        )
        metadata = {**model.metadata, "quantization": self.config.to_dict()["init_args"]}
        checkpoint = dataclasses.replace(model, network=network, metadata=metadata)
        return OptimizedModel(checkpoint, self.config, report)

    def _machine_problems(self, network: Decoder, target: str | None) -> list[Incompatibility]:
        here = this_target(network.embedding.weight.device)
        target = here if target is None else target
        if target not in TARGETS:
            match = nearest(target, TARGETS)
            raise ConfigError(
                f"target={target!r} is unknown",
                f"did you mean {match!r}?" if match else f"use one of {', '.join(TARGETS)}",
            )
        problems = []
        if target != here:
            problems.append(
                Incompatibility(
                    f"target {target}: the model is on {here}, and what runs there is only known there",
                    f"quantize on {target}" if target != "mobile" else "there is no exporter for it yet",
                )
            )
        if self.config.compile and here.startswith("cpu") and compiler_path() is None:
            problems.append(
                Incompatibility(
                    "compile: no C++ compiler, or torch lies under a path with a space",
                    "install g++ with Python's headers, or turn compile off",
                )
            )
        return problems

    def _notes(self, calibration: Calibration | None) -> tuple[str, ...]:
        notes = []
        if self.method.needs_calibration and calibration is not None:
            rows, length = calibration.windows.shape
            notes.append(
                f"activation ranges: AffineQuantizedMinMaxObserver on {rows} windows of {length} tokens of "
                "training text"
            )
        return tuple(notes)


def _state_problems(model: LoadedCheckpoint) -> list[Incompatibility]:
    """What is wrong with the weights themselves."""
    network, done = model.network, model.metadata.get("quantization")
    if done:
        return [
            Incompatibility(
                f"the model is quantized already ({done['method']})",
                "name the checkpoint that it was made from",
            )
        ]
    if is_compiled(network):
        return [Incompatibility("the network is compiled", "load it again from its checkpoint")]
    problems = []
    for name, parameter in network.named_parameters():
        if type(parameter) is not nn.Parameter:
            problems.append(
                Incompatibility(f"{name} is a {type(parameter).__name__}, not a plain parameter", _WRAPPED)
            )
        elif not torch.isfinite(parameter).all():
            problems.append(
                Incompatibility(f"{name} holds NaN or infinity", "use an earlier checkpoint of the run")
            )
    return problems
