"""Measures a checkpoint of Insight with the peers' evaluator in float32, to compare the bits per byte."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.bits_per_byte import bits_per_byte
from benchmarks.peers.protocol import print_result
from benchmarks.peers.windows import load_tokens
from insight.models import DecoderConfig
from insight.runtime.component import component_from_dict


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--validation-tokens", type=Path, required=True)
    parser.add_argument("--validation-bytes", type=int, required=True)
    arguments = parser.parse_args()
    checkpoint: dict[str, Any] = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    saved = checkpoint["insight"]
    config = component_from_dict(saved["network"])
    assert isinstance(config, DecoderConfig)
    network = config.build(saved["vocabulary_size"])
    prefix = "network."
    network.load_state_dict(
        {
            name.removeprefix(prefix): weight
            for name, weight in checkpoint["state_dict"].items()
            if name.startswith(prefix)
        }
    )
    network.eval()
    value = bits_per_byte(
        lambda input_ids: network.logits(network(input_ids)),
        load_tokens(arguments.validation_tokens),
        arguments.validation_bytes,
        saved["sequence_length"],
    )
    print_result({"bits_per_byte": value, "step": int(checkpoint["global_step"])})


if __name__ == "__main__":
    main()
