"""Throughput of litgpt's GPT in a plain loop."""

from __future__ import annotations

import torch

from benchmarks.peers.litgpt_decoder import build_litgpt, litgpt_loss
from benchmarks.peers.throughput_arguments import parse_arguments, run_plain_loop

if __name__ == "__main__":
    arguments = parse_arguments(__doc__)
    torch.manual_seed(0)
    model = build_litgpt(arguments.shape)
    run_plain_loop(arguments, model, litgpt_loss(model, arguments.mode == "compiled"))
