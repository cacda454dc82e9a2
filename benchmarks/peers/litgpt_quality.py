"""litgpt's GPT trained for a number of seconds in a plain loop like that of its ``pretrain``."""

from __future__ import annotations

import torch

from benchmarks.peers.litgpt_decoder import build_litgpt, litgpt_loss
from benchmarks.peers.measured import adamw, plain_step
from benchmarks.peers.quality_run import QualityRun, parse_quality_arguments


def main() -> None:
    """Train and print the curve."""
    arguments = parse_quality_arguments(__doc__)
    torch.manual_seed(arguments.seed)
    model = build_litgpt(arguments.shape)
    optimizer = adamw(model, arguments.learning_rate)
    loss_function = litgpt_loss(model, arguments.mode == "compiled")
    step = plain_step(model, optimizer, loss_function, arguments.precision)
    run = QualityRun(arguments, model, model)
    model.train()
    while True:
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * run.multiplier()
        loss = step(*run.windows.batch(run.num_steps, arguments.batch_size))
        if run.step_ended():
            break
    run.report(last_loss=loss.item())


if __name__ == "__main__":
    main()
