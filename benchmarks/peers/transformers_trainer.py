"""Throughput of transformers' LlamaForCausalLM in its Trainer, without options that cost time."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.peers.measured import StepClock, adamw
from benchmarks.peers.throughput_arguments import new_clock, parse_arguments, report
from benchmarks.peers.trainer_windows import ShiftedLabels, trainer_arguments
from benchmarks.peers.transformers_decoder import build_transformers
from benchmarks.peers.windows import TrainingWindows, load_tokens


class ClockCallback(TrainerCallback):
    """Feeds the clock, and stops the Trainer when it has measured enough."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clock.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = self.clock.step_ended()


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments(__doc__)
    torch.manual_seed(0)
    model = build_transformers(arguments.shape)
    windows = TrainingWindows(load_tokens(arguments.tokens), arguments.shape.sequence_length, seed=0)
    optimizer = adamw(model, 1e-3)
    clock = new_clock(arguments)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                **trainer_arguments(folder, arguments.batch_size, arguments.precision, arguments.mode)
            ),
            train_dataset=ShiftedLabels(windows),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
            callbacks=[ClockCallback(clock)],
        )
        trainer.train()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    report(arguments, clock, parameters=num_parameters)


if __name__ == "__main__":
    main()
