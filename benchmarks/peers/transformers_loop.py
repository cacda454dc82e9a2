"""Throughput of transformers' LlamaForCausalLM in a plain loop."""

from __future__ import annotations

import torch

from benchmarks.peers.throughput_arguments import parse_arguments, run_plain_loop
from benchmarks.peers.transformers_decoder import build_transformers, transformers_loss

if __name__ == "__main__":
    arguments = parse_arguments(__doc__)
    torch.manual_seed(0)
    model = build_transformers(arguments.shape)
    run_plain_loop(arguments, model, transformers_loss(model, arguments.mode == "compiled"))
