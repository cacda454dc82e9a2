"""Reading the network and the tokenizer from a checkpoint, without running code in the file."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from insight.checkpoints.format import CONTENT, FORMAT_VERSION, CheckpointContent
from insight.data.tokenizers import BaseTokenizer, load_tokenizer
from insight.models import Decoder, DecoderConfig, EncoderDecoder, EncoderDecoderConfig
from insight.runtime.component import component_from_dict
from insight.runtime.errors import CheckpointError, ConfigError, TokenizerError

_PREFIX = "network."


@dataclass(frozen=True)
class LoadedCheckpoint:
    """The decoder in a checkpoint, and the tokenizer that it was trained with."""

    network: Decoder  # with its weights, in evaluation mode
    network_config: DecoderConfig
    tokenizer: BaseTokenizer
    metadata: dict[str, Any]  # sequence_length, step, vocabulary_size and canaries, as in CheckpointContent

    @property
    def tokenizers(self) -> tuple[BaseTokenizer, ...]:
        """The tokenizers, in the order in which data modules take them."""
        return (self.tokenizer,)


@dataclass(frozen=True)
class LoadedTranslationModel:
    """The encoder-decoder in a checkpoint, and the tokenizers that it was trained with."""

    network: EncoderDecoder  # with its weights, in evaluation mode
    network_config: EncoderDecoderConfig
    tokenizer: BaseTokenizer  # of the target
    source_tokenizer: BaseTokenizer  # that of the target where the vocabulary is joint
    languages: tuple[str, str]  # names of the source and of the target
    directions: str  # "forward", or "both": the source then begins with a tag of the language to write
    metadata: dict[str, Any]  # as in LoadedCheckpoint

    @property
    def tokenizers(self) -> tuple[BaseTokenizer, ...]:
        """The tokenizers, in the order in which data modules take them."""
        return self.tokenizer, self.source_tokenizer


def load_checkpoint(
    path: Path | str, device: torch.device | str = "cpu", allowed_packages: tuple[str, ...] = ("insight",)
) -> LoadedCheckpoint:
    """Read a checkpoint of a decoder that a run wrote.

    Args:
        path: The ``.ckpt`` file.
        device: The device of the weights.
        allowed_packages: Packages that class paths in the file may point into.

    Raises:
        CheckpointError: The file is missing, not a checkpoint of a decoder, truncated or of another version,
            contains code, or its weights do not fit its network.
    """
    loaded = load_any_checkpoint(path, device, allowed_packages)
    if not isinstance(loaded, LoadedCheckpoint):
        problem = f"{path}: holds a translation model, not a decoder that continues text"
        raise CheckpointError(problem, "use it with `insight translate`, or name the run of a decoder")
    return loaded


def load_any_checkpoint(
    path: Path | str, device: torch.device | str = "cpu", allowed_packages: tuple[str, ...] = ("insight",)
) -> LoadedCheckpoint | LoadedTranslationModel:
    """Read a checkpoint of either kind; arguments and errors as in :func:`load_checkpoint`."""
    contents = read_checkpoint(Path(path))
    described = describe(contents, path, allowed_packages)
    network: Any = described.network.to_empty(device=device)
    load_weights(network, contents, path)
    return replace(described, network=network.eval())


def describe(
    contents: dict[str, Any], path: Path | str, allowed_packages: tuple[str, ...] = ("insight",)
) -> LoadedCheckpoint | LoadedTranslationModel:
    """The model in a checkpoint that was read, with a network on the ``meta`` device, without weights."""
    try:
        saved = CheckpointContent.from_dict(contents[CONTENT])
        config = component_from_dict(saved.network, allowed_packages)
        tokenizers = saved_tokenizers(contents, path)
        metadata = {
            "sequence_length": saved.sequence_length,
            "vocabulary_size": saved.vocabulary_size,
            "step": contents.get("global_step", 0),
            "canaries": saved.canaries,
        }
        if isinstance(config, DecoderConfig):
            with torch.device("meta"):
                network = config.build(saved.vocabulary_size)
            return LoadedCheckpoint(network, config, tokenizers[0], metadata)
        if not isinstance(config, EncoderDecoderConfig) or saved.languages is None:
            problem = f"{path}: holds a {type(config).__name__}, which no run trains"
            raise CheckpointError(problem, "use a run of insight fit")
        tokenizer, of_source = tokenizers
        separate = None if saved.source_tokenizer is None else of_source.vocabulary_size
        with torch.device("meta"):
            pair = config.build(saved.vocabulary_size, separate)
        source, target, directions = saved.languages
        languages = (source, target)
        return LoadedTranslationModel(pair, config, tokenizer, of_source, languages, directions, metadata)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error.problem}", error.remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def tokenizers_of(data: Any) -> tuple[BaseTokenizer, ...]:
    """The tokenizers of a data module; one of your own may have only ``tokenizer``."""
    tokenizers: tuple[BaseTokenizer, ...] = getattr(data, "tokenizers", None) or (data.tokenizer,)
    return tokenizers


def other_tokenizer(saved: Sequence[BaseTokenizer], present: Sequence[BaseTokenizer]) -> str | None:
    """The first difference between the tokenizers of a checkpoint and those of a run, as a phrase."""
    for theirs, ours, side in zip(saved, present, ("", " of the source"), strict=False):
        if theirs.fingerprint() != ours.fingerprint():
            sizes = f"{theirs.vocabulary_size} tokens, this one has {ours.vocabulary_size}"
            return f"was trained with another tokenizer{side} ({sizes})"
    return None


def load_weights_into(
    network: Decoder | EncoderDecoder,
    path: Path | str,
    tokenizer: BaseTokenizer | None = None,
    load: Callable[[dict[str, torch.Tensor]], Any] | None = None,
    source_tokenizer: BaseTokenizer | None = None,
) -> None:
    """Load only the weights of a checkpoint into a network.

    Args:
        network: A network of the checkpoint's shape.
        path: The ``.ckpt`` file.
        tokenizer: The tokenizer that the network will be used with; another one gives ids other meanings.
        load: A function that loads the weights, by name, into a sharded network.
        source_tokenizer: The tokenizer of the source that a translation model will be used with.

    Raises:
        CheckpointError: As for :func:`load_checkpoint`, or the checkpoint is of another network or tokenizer;
            the network is unchanged then.
    """
    contents = read_checkpoint(Path(path))
    present = [tokenizer for tokenizer in (tokenizer, source_tokenizer) if tokenizer is not None]
    if present:
        problem = other_tokenizer(saved_tokenizers(contents, path), present)
        if problem:
            raise CheckpointError(f"{path}: {problem}", "use the tokenizer of its run")
    load_weights(network, contents, path, load)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint file: tensors and plain values only.

    Raises:
        CheckpointError: The file is missing, no checkpoint, truncated, of another version or contains code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint", "name a .ckpt file or a run folder")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                raise _foreign(path)
        raise CheckpointError(f"{path}: the checkpoint is truncated", "use another checkpoint of the run")
    # Memory-map the file, so that the optimizer state, twice the size of the weights, stays on the disk.
    contents: dict[str, Any] = load_plain(path, "cpu", _damaged, mmap=True)
    saved = contents.get(CONTENT) if isinstance(contents, dict) else None
    if not isinstance(saved, dict) or "state_dict" not in contents:
        raise _foreign(path)
    require_version(path, saved, FORMAT_VERSION)
    return contents


def load_plain(
    path: Path,
    device: torch.device | str,
    damaged: Callable[[Path, Exception], CheckpointError],
    mmap: bool = False,
) -> Any:
    """The contents of a file of ``torch.save``; one with code, or a ``damaged`` one, is refused."""
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        problem = f"{path}: holds code or objects, not only tensors and plain values"
        raise CheckpointError(problem, "do not use it; it is not loaded") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise damaged(path, error) from error


def require_version(path: Path, saved: Mapping[str, Any], version: int) -> None:
    """Refuse a file of another format version with a :class:`CheckpointError`."""
    if saved.get("format_version") != version:
        problem = f"{path}: format version {saved.get('format_version')}, this insight reads {version}"
        raise CheckpointError(problem, "use the version of insight that wrote it")


def is_resumable(contents: Mapping[str, Any]) -> bool:
    """Whether a read checkpoint is a state of training, and not only the weights of a model."""
    return "optimizer_states" in contents


def network_weights(contents: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's weights in a read checkpoint, by their names in the network."""
    return {
        name.removeprefix(_PREFIX).replace("_orig_mod.", ""): tensor
        for name, tensor in contents["state_dict"].items()
        if name.startswith(_PREFIX)
    }


def load_weights(
    network: Decoder | EncoderDecoder,
    contents: dict[str, Any],
    path: Path | str,
    load: Callable[[dict[str, torch.Tensor]], Any] | None = None,
) -> None:
    """Copy the weights of a read checkpoint into ``network``; arguments as in :func:`load_weights_into`."""
    weights = network_weights(contents)
    differences = differing_tensors(weights, network.state_dict())
    if differences:
        raise CheckpointError(f"{path}: {differences[0]}", "use the network and vocabulary of the checkpoint")
    (load or network.load_state_dict)(weights)


def differing_tensors(saved: Mapping[str, torch.Tensor], present: Mapping[str, torch.Tensor]) -> list[str]:
    """The differences in names and shapes between saved tensors and a network's, one phrase per tensor."""
    differences = []
    for name, tensor in present.items():
        shape = tuple(tensor.shape)
        if name not in saved:
            differences.append(f"lacks the tensor {name} {shape}")
        elif saved[name].shape != shape:
            differences.append(f"{name} has shape {tuple(saved[name].shape)}, the network {shape}")
    unknown = (name for name in saved if name not in present)
    return [*differences, *(f"the network has no tensor {name}" for name in unknown)]


def saved_tokenizers(contents: dict[str, Any], path: Path | str) -> tuple[BaseTokenizer, ...]:
    """The tokenizers in a read checkpoint, in the order in which data modules take them.

    That of a decoder comes alone; of a translation model, that of the target and that of the source.
    """
    try:
        saved = contents[CONTENT]
        tokenizer = load_tokenizer(saved["tokenizer"])
        if saved.get("languages") is None:
            return (tokenizer,)
        of_source = saved.get("source_tokenizer")
        return tokenizer, tokenizer if of_source is None else load_tokenizer(of_source)
    except TokenizerError as error:
        raise CheckpointError(f"{path}: {error.problem}", error.remedy) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _foreign(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: is not a checkpoint of insight", "name a .ckpt file or a run folder")


def _damaged(path: Path | str, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
    problem = f"{path}: the checkpoint is damaged ({reason})"
    return CheckpointError(problem, "use another checkpoint of the run")
