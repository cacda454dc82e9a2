"""transformers' LlamaForCausalLM trained for a number of seconds by its own Trainer."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.peers.measured import adamw
from benchmarks.peers.quality_run import QualityRun, parse_quality_arguments
from benchmarks.peers.trainer_windows import ShiftedLabels, trainer_arguments
from benchmarks.peers.transformers_decoder import build_transformers


class RunCallback(TrainerCallback):
    """Measures between steps, and stops the Trainer when the budget is spent."""

    def __init__(self, run: QualityRun) -> None:
        self.run = run

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = self.run.step_ended()


def main() -> None:
    """Train and print the curve."""
    arguments = parse_quality_arguments(__doc__)
    torch.manual_seed(arguments.seed)
    model = build_transformers(arguments.shape)
    optimizer = adamw(model, arguments.learning_rate)
    run = QualityRun(arguments, lambda input_ids: model(input_ids=input_ids).logits, model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: run.multiplier())
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                **trainer_arguments(
                    folder, arguments.batch_size, arguments.precision, arguments.mode, arguments.seed
                )
            ),
            train_dataset=ShiftedLabels(run.windows),
            optimizers=(optimizer, schedule),
            callbacks=[RunCallback(run)],
        )
        trainer.train()
    run.report()


if __name__ == "__main__":
    main()
