"""One compressed model: made in one process, measured in other processes that only load it."""

from __future__ import annotations

import argparse
import gc
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.peers.protocol import print_result
from insight.checkpoints import load_checkpoint
from insight.checkpoints.artifact import load_model
from insight.data.preparation import Preparation
from insight.models import Decoder
from insight.models.compilation import compile_network
from insight.optimization import Calibration, save_artifact
from insight.optimization.config import plan
from insight.optimization.measurement import (
    EvaluationText,
    disk_bytes,
    measure_quality,
    measure_speed,
    weight_bytes,
)
from insight.runtime.resources import resident_bytes

ORIGINAL, INSIGHT, TORCHAO, TORCH_AO = "original", "insight", "torchao", "torch.ao"
MODEL = "model.pt"


def main() -> None:
    """Make or measure the model, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("make", "measure"))
    parser.add_argument("--kind", choices=(ORIGINAL, INSIGHT, TORCHAO, TORCH_AO), required=True)
    parser.add_argument("--method", default="", help="of Insight, or the name of torchao's configuration")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the trained model")
    parser.add_argument("--folder", type=Path, required=True, help="where the made model is kept")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring speed")
    parser.add_argument("--quality", action="store_true", help="measure bits per byte too")
    arguments = parser.parse_args()
    print_result(_make(arguments) if arguments.task == "make" else _measure(arguments))


def _make(arguments: argparse.Namespace) -> dict[str, Any]:
    loaded = load_checkpoint(arguments.checkpoint)
    folder: Path = arguments.folder
    if arguments.kind == INSIGHT:
        (config,) = plan(arguments.method, "on" if arguments.compiled else "off")
        text = EvaluationText.of_model(arguments.checkpoint)
        store = Preparation(text.files, loaded.tokenizer, text.cache_dir).store("train")
        calibration = Calibration.from_store(store, loaded.metadata["sequence_length"])
        save_artifact(config.build().apply(loaded, calibration), folder)
        return {"dtype": config.dtype}
    network = loaded.network.requires_grad_(False)
    dtype = "float32"
    if arguments.kind == TORCHAO:
        (config,) = plan("int8_dynamic", "off")
        dtype = config.dtype  # Insight's dtype, so that the rows are comparable
        _quantize_with_torchao(network.to(getattr(torch, dtype)), arguments.method)
    elif arguments.kind == TORCH_AO:
        network = _quantize_with_torch_ao(network)
    folder.mkdir(parents=True)
    _save(network, folder / MODEL, whole=arguments.kind == TORCH_AO)
    return {"dtype": dtype}


def _quantize_with_torchao(network: Decoder, name: str) -> None:
    """Make one call with the configuration's defaults, as in torchao's README."""
    import torchao.quantization as torchao

    torchao.quantize_(network, getattr(torchao, name)())


def _quantize_with_torch_ao(network: Decoder) -> Decoder:
    """Replace linear layers by plain ``nn.Linear``, the only class that ``quantize_dynamic`` quantizes."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = nn.Linear
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecation is stated in the table
        quantized: Decoder = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
    return quantized


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torchao.quantization  # noqa: F401 (before memory is measured, since it is not part of a model)

    gc.collect()
    before = resident_bytes()
    begun = time.perf_counter()
    network = _load(arguments)
    if arguments.compiled and arguments.kind != INSIGHT:
        # All are compiled like Insight's artefact when it loads, so the compiler's memory counts for all.
        compile_network(network)
    load_seconds = time.perf_counter() - begun
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        network.logits(network(torch.zeros(1, 1, dtype=torch.int64)))
    gc.collect()
    result: dict[str, Any] = {
        "disk_bytes": disk_bytes(arguments.folder),
        "weight_bytes": weight_bytes(network),
        "load_seconds": load_seconds,
        "model_resident_bytes": resident_bytes() - before,
        "torch": torch.__version__,
        "num_threads": torch.get_num_threads(),
    }
    if arguments.quality:
        result["bits_per_byte"] = _bits_per_byte(network, arguments.checkpoint)
    context = network.config.max_sequence_length
    speeds = measure_speed(
        {"": network},
        prompt_length=min(128, context // 2),
        num_new_tokens=min(32, context // 2),
        seconds=arguments.seconds,
    )[""]
    for speed in speeds:
        result[f"prefill_seconds_{speed.batch_size}"] = speed.prefill_seconds_p50
        result[f"decode_seconds_{speed.batch_size}"] = speed.decode_seconds_p50
        result[f"tokens_per_second_{speed.batch_size}"] = speed.tokens_per_second
    return result


def _save(network: Decoder, path: Path, whole: bool) -> None:
    """Save a network of the peers, which have no file format.

    The whole network is written for torch.ao, which replaces modules. For torchao the weights are written,
    since it replaces only weights and its modules cannot be pickled.
    """
    if whole:
        torch.save(network, path)
    else:
        parts = {"config": network.config, "vocabulary_size": network.vocabulary_size}
        torch.save({**parts, "weights": network.state_dict()}, path)


def _load(arguments: argparse.Namespace) -> Decoder:
    if arguments.kind == INSIGHT:
        return load_model(arguments.folder).network
    # weights_only is not needed, since this module wrote the file itself.
    saved: Any = torch.load(arguments.folder / MODEL, weights_only=False)
    if isinstance(saved, Decoder):
        return saved
    with torch.device("meta"):
        network: Decoder = saved["config"].build(saved["vocabulary_size"])
    network.to_empty(device="cpu").requires_grad_(False).eval()
    network.load_state_dict(saved["weights"], assign=True)
    return network


def _bits_per_byte(network: Decoder, checkpoint: Path) -> float:
    reference = load_checkpoint(checkpoint)
    store = EvaluationText.of_model(checkpoint).encode(reference.tokenizer)
    return measure_quality(
        network,
        store.tokens(0, store.num_tokens),
        reference.tokenizer.token_byte_lengths(),
        reference.metadata["sequence_length"],
        end_of_text_id=store.end_of_text_id,
    ).bits_per_byte


if __name__ == "__main__":
    main()
