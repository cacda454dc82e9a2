"""A quantized model as a folder: description, weights, tokenizer; read without running anything it holds."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import xxhash

from insight.checkpoints import LoadedCheckpoint
from insight.data.tokenizers import load_tokenizer
from insight.models import Decoder, DecoderConfig
from insight.optimization.config import QuantizationConfig
from insight.optimization.execution import compile_network
from insight.optimization.methods import find_method
from insight.optimization.optimizer import OptimizedModel
from insight.optimization.output_folder import new_folder, write_json
from insight.runtime.component import component_from_dict
from insight.runtime.errors import CheckpointError, ConfigError, TokenizerError
from insight.runtime.hardware import compiler_path
from insight.runtime.run_folder import ARTIFACT_DESCRIPTION
from insight.runtime.version import __version__

FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS, REPORT = ARTIFACT_DESCRIPTION, "weights.pt", "report.json"


def save_artifact(
    model: OptimizedModel, folder: Path | str, extra_files: Mapping[str, str] | None = None
) -> None:
    """Write a quantized model as a new folder, which appears complete or not at all.

    Args:
        model: To write.
        folder: Its place; must not exist.
        extra_files: Text files to lay beside it, by name: the report, the configuration of the run.

    Raises:
        OutputError: The folder exists already or cannot be written.
    """
    checkpoint = model.checkpoint
    with new_folder(Path(folder)) as temporary:
        torch.save(checkpoint.network.state_dict(), temporary / WEIGHTS)
        description = {
            "format_version": FORMAT_VERSION,
            "config": model.config.to_dict(),
            "network": checkpoint.network_config.to_dict(),
            "vocabulary_size": checkpoint.network.vocabulary_size,
            "metadata": {key: value for key, value in checkpoint.metadata.items() if key != "quantization"},
            "reduced_range": _has_reduced_range(checkpoint.network),
            "weights_hash": _hash(temporary / WEIGHTS),
            "report": dataclasses.asdict(model.report),
            "versions": {"insight": __version__, "torch": torch.__version__, "torchao": version("torchao")},
        }
        write_json(temporary / DESCRIPTION, description)
        checkpoint.tokenizer.save(temporary / "tokenizer.json")
        for name, text in (extra_files or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")


def load_artifact(
    folder: Path | str, device: torch.device | str = "cpu", allowed_packages: tuple[str, ...] = ("insight",)
) -> LoadedCheckpoint:
    """Read a folder that :func:`save_artifact` wrote; the network computes the same bits as before.

    Args:
        folder: The artefact.
        device: Where the weights go.
        allowed_packages: Packages that class paths in it may point into.

    Raises:
        CheckpointError: Missing, damaged, holding code, of another version, or it cannot run here as it was
            measured (it is compiled and there is no compiler; its integers overflow on this processor).
    """
    folder = Path(folder)
    saved = _read_description(folder)
    try:
        config = component_from_dict(saved["config"], allowed_packages)
        network_config = component_from_dict(saved["network"], allowed_packages)
        if not (isinstance(config, QuantizationConfig) and isinstance(network_config, DecoderConfig)):
            raise CheckpointError(f"{folder}: does not describe a quantized decoder", "write it again")
        with torch.device("meta"):
            network = network_config.build(saved["vocabulary_size"])
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        expected_hash, reduced_range = saved["weights_hash"], saved["reduced_range"]
        metadata = {**saved["metadata"], "quantization": config.to_dict()["init_args"]}
    except (ConfigError, TokenizerError) as error:
        raise CheckpointError(f"{folder}: {error.problem}", error.remedy) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / DESCRIPTION, f"{type(error).__name__}: {error}") from error
    weights = _read_weights(folder / WEIGHTS, expected_hash, device)
    network.to_empty(device=device).requires_grad_(False).eval()
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise _damaged(folder / WEIGHTS, " ".join(str(error).split())[:160]) from error
    _require_machine(folder, config, reduced_range, torch.device(device))
    if config.compile:
        compile_network(network)
    return LoadedCheckpoint(network, network_config, tokenizer, metadata)


def is_artifact(path: Path | str) -> bool:
    """Whether ``path`` is a folder with a quantized model."""
    return (Path(path) / DESCRIPTION).is_file()


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: holds no {DESCRIPTION}", "name a folder that `insight quantize` wrote"
        )
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(saved, dict):
        raise _damaged(path, "no object")
    if saved.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {saved.get('format_version')}, this insight reads {FORMAT_VERSION}",
            "use the version of insight that wrote it",
        )
    return saved


def _read_weights(path: Path, expected_hash: str, device: torch.device | str) -> dict[str, torch.Tensor]:
    import torchao.quantization  # noqa: F401 (allows its own tensor classes to be read)

    if not path.is_file() or not zipfile.is_zipfile(path):
        raise _damaged(path, "missing or truncated")
    if _hash(path) != expected_hash:
        raise _damaged(path, "its bytes are not those that were written")
    try:
        weights = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds code or objects, not only tensors and plain values",
            "do not use it; it is not loaded",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise _damaged(path, str(error).splitlines()[0][:120]) from error
    if not (isinstance(weights, dict) and all(isinstance(value, torch.Tensor) for value in weights.values())):
        raise _damaged(path, "it holds something else than weights")
    return weights


def _require_machine(
    folder: Path, config: QuantizationConfig, reduced_range: bool, device: torch.device
) -> None:
    if config.compile and device.type == "cpu" and compiler_path() is None:
        raise CheckpointError(
            f"{folder}: was made and measured compiled, and there is no C++ compiler here",
            "install g++ with Python's headers, or quantize with --compile off",
        )
    if find_method(config.method).multiplies_integers and not reduced_range:
        from torchao.utils import should_reduce_range

        if should_reduce_range(device):
            raise CheckpointError(
                f"{folder}: uses all 8 bits, whose products overflow on this processor (no VNNI)",
                "quantize on this machine, where the range is reduced",
            )


def _has_reduced_range(network: Decoder) -> bool:
    return any(getattr(parameter, "reduce_range", False) for parameter in network.parameters())


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return str(digest.hexdigest())


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: the quantized model is damaged ({reason})", "write it again")
