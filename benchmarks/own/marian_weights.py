"""Writes the weights of a run with benchmarks/marian.yaml as those of MarianMT, for other programs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.protocol import print_result
from insight.checkpoints import LoadedTranslationModel
from insight.checkpoints.artifact import load_model
from insight.interchange.encoder_decoders import MARIAN
from insight.models import EncoderDecoder
from insight.runtime.run_folder import find_checkpoint

_NAMES = {
    "attention.query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.output": ("self_attn.out_proj",),
    "attention_norm": ("self_attn_layer_norm",),
    "cross_attention.query": ("encoder_attn.q_proj",),
    "cross_attention.key_value": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross_attention.output": ("encoder_attn.out_proj",),
    "cross_attention_norm": ("encoder_attn_layer_norm",),
    "feed_forward.up": ("fc1",),
    "feed_forward.down": ("fc2",),
    "feed_forward_norm": ("final_layer_norm",),
}
_BLOCK = re.compile(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)\.(weight|bias)")
_NEVER_CHOSEN = -1e4


def marian_weights(network: EncoderDecoder) -> dict[str, Tensor]:
    """The tensors under MarianMT's names, with one more token of padding, as its embedding has."""
    ours = network.state_dict()
    embedding = ours["encoder.embedding.weight"]
    bias = embedding.new_zeros(len(embedding) + 1)  # training knows none
    bias[-1] = _NEVER_CHOSEN
    theirs = {
        "model.shared.weight": torch.cat([embedding, torch.zeros_like(embedding[:1])]),
        "final_logits_bias": bias.unsqueeze(0),
    }
    for name, tensor in ours.items():
        if found := _BLOCK.fullmatch(name):
            half, layer, part, kind = found.groups()
            names = _NAMES[part]
            for theirs_name, rows in zip(names, tensor.chunk(len(names)), strict=True):
                theirs[f"model.{half}.layers.{layer}.{theirs_name}.{kind}"] = rows.clone()
    _require_equal(network, theirs)
    return theirs


def _require_equal(network: EncoderDecoder, theirs: dict[str, Tensor]) -> None:
    """Insight's own reader of MarianMT must find the weights that were written."""
    config = network.config
    read = MARIAN.convert(theirs, config.encoder.num_layers, config.decoder.num_layers)
    for name, tensor in network.state_dict().items():
        if not torch.equal(read[name][: len(tensor)], tensor):
            raise SystemExit(f"{name} was not written as it is")


def marian_config(network: EncoderDecoder, end_id: int) -> dict[str, Any]:
    """The options of ``MarianConfig`` for this network."""
    config: Any = network.config
    options = {
        "vocab_size": network.vocabulary_size + 1,
        "pad_token_id": network.vocabulary_size,
        "eos_token_id": end_id,
        "decoder_start_token_id": end_id,
        "forced_eos_token_id": None,
        "d_model": config.encoder.hidden_size,
        "max_position_embeddings": config.encoder.max_sequence_length,
        "activation_function": "swish",
        "scale_embedding": True,
    }
    for half in ("encoder", "decoder"):
        stack = getattr(config, half)
        options[f"{half}_layers"] = stack.num_layers
        options[f"{half}_attention_heads"] = stack.attention.num_heads
        options[f"{half}_ffn_dim"] = stack.feed_forward.intermediate_size
    return options


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    loaded = load_model(find_checkpoint(arguments.checkpoint))
    assert isinstance(loaded, LoadedTranslationModel)
    config = marian_config(loaded.network, loaded.tokenizer.end_of_text_id)
    torch.save({"config": config, "weights": marian_weights(loaded.network)}, arguments.output)
    print_result({"parameters": sum(one.numel() for one in loaded.network.parameters())})


if __name__ == "__main__":
    main()
