"""The command line of a throughput measurement, and the plain loop that all contenders share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.decoder_shape import DecoderShape, throughput_shape
from benchmarks.peers.measured import Loss, StepClock, adamw, plain_step
from benchmarks.peers.protocol import print_result
from benchmarks.peers.windows import TrainingWindows, load_tokens


def parse_arguments(description: str) -> argparse.Namespace:
    """Options of one measurement, as ``train_throughput`` passes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tokens", type=Path, required=True, help="token ids written by numpy.save")
    parser.add_argument("--shape", type=DecoderShape.from_json, default=throughput_shape(), help="JSON")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--mode", choices=("eager", "compiled"), default="eager")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long to measure")
    parser.add_argument("--warmup-steps", type=int, default=3)
    parser.add_argument("--min-steps", type=int, default=5, help="measured even if they take longer")
    return parser.parse_args()


def new_clock(arguments: argparse.Namespace) -> StepClock:
    """The clock of one measurement."""
    return StepClock(arguments.warmup_steps, arguments.seconds, arguments.min_steps)


def report(arguments: argparse.Namespace, clock: StepClock, **extra: Any) -> None:
    """Print the measurement, with numbers that show whether contenders did the same work."""
    tokens_per_step = arguments.batch_size * arguments.shape.sequence_length
    print_result({**clock.report(tokens_per_step, arguments.precision), **extra})


def run_plain_loop(arguments: argparse.Namespace, model: torch.nn.Module, loss_function: Loss) -> None:
    """Train ``model`` in the shared loop, on windows that are already in memory."""
    windows = TrainingWindows(load_tokens(arguments.tokens), arguments.shape.sequence_length, seed=0)
    batches = [windows.batch(index, arguments.batch_size) for index in range(16)]
    step = plain_step(model, adamw(model, 1e-3), loss_function, arguments.precision)
    model.train()
    clock = new_clock(arguments)
    clock.start()
    index = 0
    losses = []
    while True:
        losses.append(step(*batches[index % len(batches)]).item())
        index += 1
        if clock.step_ended():
            break
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    report(arguments, clock, parameters=num_parameters, first_loss=losses[0], last_loss=losses[-1])
