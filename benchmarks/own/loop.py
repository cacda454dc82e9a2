"""Throughput of Insight's decoder and loss in the peers' plain loop."""

from __future__ import annotations

import torch

from benchmarks.own.decoder import decoder_config, decoder_loss
from benchmarks.peers.throughput_arguments import parse_arguments, run_plain_loop

if __name__ == "__main__":
    arguments = parse_arguments(__doc__)
    torch.manual_seed(0)
    model = decoder_config(arguments.shape).build(arguments.shape.vocabulary_size)
    run_plain_loop(arguments, model, decoder_loss(model, arguments.mode == "compiled"))
