"""Loading a model from a checkpoint or the folder of a quantized model, without running code in the files."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import xxhash

from insight.checkpoints.reader import (
    LoadedCheckpoint,
    LoadedTranslationModel,
    load_any_checkpoint,
    load_checkpoint,
    load_plain,
    require_version,
)
from insight.data.tokenizers import load_tokenizer
from insight.models import DecoderConfig
from insight.models.compilation import compile_network
from insight.runtime.component import Component, component_from_dict
from insight.runtime.errors import CheckpointError, ConfigError, TokenizerError
from insight.runtime.files import new_folder
from insight.runtime.hardware import compiler_path
from insight.runtime.json_files import to_text
from insight.runtime.run_folder import ARTIFACT_DESCRIPTION, find_checkpoint
from insight.runtime.version import __version__

FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS = ARTIFACT_DESCRIPTION, "weights.pt"
# These methods multiply int8 by int8, which overflows on processors without VNNI unless only 7 bits are used.
_INTEGER_PRODUCTS = ("int8_dynamic", "int8_static")


def load_model(
    path: Path | str, device: torch.device | str = "cpu", allowed_packages: tuple[str, ...] = ("insight",)
) -> LoadedCheckpoint | LoadedTranslationModel:
    """The model at ``path``, ready to run as it was measured.

    Args:
        path: A ``.ckpt`` file, a run folder, or a folder that ``insight quantize`` wrote.
        device: The device of the weights.
        allowed_packages: Packages that class paths in the file may point into.

    Raises:
        CheckpointError: The model is missing, damaged, unsafe, of another version, or cannot run here.
    """
    found = find_checkpoint(str(path), option="path")
    load = load_artifact if found.is_dir() else load_any_checkpoint
    return load(found, device, allowed_packages)


def load_decoder(path: Path | str, device: torch.device | str = "cpu") -> LoadedCheckpoint:
    """:func:`load_model` for work that continues a text; a model that translates is refused."""
    found = find_checkpoint(str(path), option="path")
    load = load_artifact if found.is_dir() else load_checkpoint
    return load(found, device)


def write_artifact(
    model: LoadedCheckpoint,
    quantization: Component,
    report: Mapping[str, Any],
    folder: Path,
    extra_files: Mapping[str, str],
) -> None:
    """Write a quantized model as a new folder, which appears complete or not at all.

    ``report`` tells the changes to the model, as plain values; ``extra_files`` are texts to write beside it,
    by name. The fields of ``quantization`` become ``metadata["quantization"]`` when the model is read.
    """
    reduced = any(getattr(weight, "reduce_range", False) for weight in model.network.parameters())
    with new_folder(folder) as temporary:
        torch.save(model.network.state_dict(), temporary / WEIGHTS)
        description = {
            "format_version": FORMAT_VERSION,
            "config": quantization.to_dict(),
            "network": model.network_config.to_dict(),
            "vocabulary_size": model.network.vocabulary_size,
            "metadata": {key: value for key, value in model.metadata.items() if key != "quantization"},
            "reduced_range": reduced,
            "weights_hash": _hash(temporary / WEIGHTS),
            "report": report,
            "versions": {"insight": __version__, "torch": torch.__version__, "torchao": version("torchao")},
        }
        (temporary / DESCRIPTION).write_text(to_text(description, indent=2) + "\n", encoding="utf-8")
        model.tokenizer.save(temporary / "tokenizer.json")
        for name, text in extra_files.items():
            (temporary / name).write_text(text, encoding="utf-8")


def load_artifact(
    folder: Path | str, device: torch.device | str = "cpu", allowed_packages: tuple[str, ...] = ("insight",)
) -> LoadedCheckpoint:
    """Read a folder that :func:`write_artifact` wrote; the network computes the same bits as before.

    The arguments are those of :func:`load_model`.

    Raises:
        CheckpointError: The artefact is missing, damaged, of another version, contains code, or cannot run
            here as it was measured (no compiler for a compiled model; integers that overflow here).
    """
    folder = Path(folder)
    saved = _read_description(folder / DESCRIPTION)
    try:
        quantization = component_from_dict(saved["config"], allowed_packages).to_dict()["init_args"]
        method, compiled = quantization["method"], quantization["compile"]
        network_config = component_from_dict(saved["network"], allowed_packages)
        if not isinstance(network_config, DecoderConfig):
            raise CheckpointError(f"{folder}: does not describe a quantized decoder", "write it again")
        with torch.device("meta"):
            network = network_config.build(saved["vocabulary_size"])
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        expected_hash, reduced_range = saved["weights_hash"], saved["reduced_range"]
        metadata = {**saved["metadata"], "quantization": quantization}
    except (ConfigError, TokenizerError) as error:
        raise CheckpointError(f"{folder}: {error.problem}", error.remedy) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / DESCRIPTION, f"{type(error).__name__}: {error}") from error
    weights = _read_weights(folder / WEIGHTS, expected_hash, device)
    network.to_empty(device=device).requires_grad_(False).eval()
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise _damaged(folder / WEIGHTS, error) from error
    device = torch.device(device)
    if compiled and device.type == "cpu" and compiler_path() is None:
        problem = f"{folder}: was made and measured compiled, and there is no C++ compiler here"
        raise CheckpointError(problem, "install g++ with Python's headers, or quantize with --compile off")
    if method in _INTEGER_PRODUCTS and not reduced_range and _must_reduce_range(device):
        problem = f"{folder}: uses all 8 bits, whose products overflow on this processor (no VNNI)"
        raise CheckpointError(problem, "quantize on this machine, where the range is reduced")
    if compiled:
        compile_network(network)
    return LoadedCheckpoint(network, network_config, tokenizer, metadata)


def _read_description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        problem = f"{path.parent}: holds no {path.name}"
        raise CheckpointError(problem, "name a folder that `insight quantize` wrote")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(saved, dict):
        raise _damaged(path, "no object")
    require_version(path, saved, FORMAT_VERSION)
    return saved


def _read_weights(path: Path, expected_hash: str, device: torch.device | str) -> dict[str, torch.Tensor]:
    import torchao.quantization  # noqa: F401 (allows its own tensor classes to be read)

    if not path.is_file() or not zipfile.is_zipfile(path):
        raise _damaged(path, "missing or truncated")
    if _hash(path) != expected_hash:
        raise _damaged(path, "its bytes are not those that were written")
    weights = load_plain(path, device, _damaged)
    if not (isinstance(weights, dict) and all(isinstance(value, torch.Tensor) for value in weights.values())):
        raise _damaged(path, "it holds something else than weights")
    return weights


def _must_reduce_range(device: torch.device) -> bool:
    from torchao.utils import should_reduce_range

    return bool(should_reduce_range(device))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return str(hashlib.file_digest(file, xxhash.xxh3_128).hexdigest())


def _damaged(path: Path, reason: object) -> CheckpointError:
    shown = " ".join(str(reason).split())[:160]
    return CheckpointError(f"{path}: the quantized model is damaged ({shown})", "write it again")
