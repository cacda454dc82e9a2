"""Networks by name or configuration: the list of known ones, and the cost of training and using one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from insight.api.config_files import config_path, read_config
from insight.runtime.errors import ConfigError, InsightError, nearest
from insight.runtime.processes import one_command

if TYPE_CHECKING:
    import torch

    from insight.models import Preset
    from insight.models.estimate import NetworkConfig
    from insight.training import OptimizerConfig

_LONGEST_BY_DEFAULT = 4096
_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")


@dataclass(frozen=True)
class NetworkChoice:
    """A network with a line that names it, and the settings of its use where a run configures them.

    ``vocabulary_size`` is known before the data or ``None``.
    """

    title: str
    config: NetworkConfig
    vocabulary_size: int | None = None
    batch_size: int | None = None
    sequence_length: int | None = None
    precision: str | None = None
    optimizer: OptimizerConfig | None = None


def choose_network(name: str | None = None, config: Sequence[str] = ()) -> NetworkChoice:
    """The network of a preset or of a configuration.

    Args:
        name: The name of a preset; see :func:`list_networks`.
        config: The configuration files of a run, of which later ones change earlier ones, or one file that
            describes only a network; instead of ``name``.

    Raises:
        ConfigError: Both or neither is given, the name is unknown, or a file is wrong.
    """
    if bool(name) == bool(config):
        remedy = "for example `insight model show gpt2`; names: model list"
        raise ConfigError("NAME and --config: give one of them", remedy)
    if name:
        return _preset(name)
    title = ", ".join(config)
    if len(config) == 1 and "class_path" in (content := read_config(config_path(config[0]))):
        return NetworkChoice(title, _network_alone(content))
    return _of_run([f"--config={file}" for file in config], title)


def list_networks() -> list[dict[str, Any]]:
    """The published networks that can be built by name: name, sizes and source of each."""
    from insight.models import PRESETS

    return [{"name": name, **_facts(preset)} for name, preset in PRESETS.items()]


def estimate(
    name: str | None = None,
    config: Sequence[str] = (),
    *,
    vocabulary_size: int | None = None,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] | None = None,
    optimizer: Literal["adamw", "muon"] | None = None,
) -> tuple[NetworkChoice, dict[str, Any]]:
    """The cost of training and using a network, computed without building it.

    Args:
        name: One of `insight model list`.
        config: Instead of NAME the network of this configuration: that of a run, or what
            `insight model show` printed. Given again, later files change earlier ones.
        vocabulary_size: Tokens that the network knows; without it those of the preset or the tokenizer.
        batch_size: Sequences per batch; without it those of the configuration, or 1.
        sequence_length: Tokens of each sequence; without it those of the configuration, or the context up to
            4,096.
        precision: Precision of the training; without it that of the configuration, or 32-true.
        optimizer: The optimizer whose states are counted; without it that of the configuration, or adamw.

    Returns:
        The network, and the numbers of :func:`estimate_network`.

    Raises:
        ConfigError: The network is not found (:func:`choose_network`), its number of tokens is unknown, or a
            number is wrong (:func:`estimate_network`).
    """
    chosen = choose_network(name, config)

    from insight.models.estimate import longest_of
    from insight.training import AdamW, MuonAdamW

    named: dict[str, OptimizerConfig] = {"adamw": AdamW(), "muon": MuonAdamW()}
    known = _first(vocabulary_size, chosen.vocabulary_size)
    if known is None:
        raise ConfigError("the number of tokens is not known without the data", "give --vocabulary_size")
    length = min(longest_of(chosen.config), _LONGEST_BY_DEFAULT)
    numbers = estimate_network(
        chosen.config,
        known,
        _first(batch_size, chosen.batch_size, 1),
        _first(sequence_length, chosen.sequence_length, length),
        precision or (chosen.precision if chosen.precision in _PRECISIONS else "32-true"),
        (named[optimizer] if optimizer else chosen.optimizer) or named["adamw"],
    )
    return chosen, numbers


def _first(*values: Any) -> Any:
    """The first value that is not ``None``; 0 counts as given."""
    return next((value for value in values if value is not None), None)


def estimate_network(
    config: NetworkConfig,
    vocabulary_size: int,
    batch_size: int,
    sequence_length: int,
    precision: str,
    optimizer: OptimizerConfig,
    source_vocabulary_size: int | None = None,
) -> dict[str, Any]:
    """The numbers of ``insight model estimate --json``.

    ``precision`` is ``32-true``, ``bf16-mixed`` (float32 weights) or ``bf16-true``; ``16-mixed`` and
    ``16-true`` have the same sizes.

    Raises:
        ConfigError: A number is below 1 or above the context, or the memory depends on the text.
    """
    import torch

    from insight.models.estimate import (
        build_without_memory,
        decoder_of,
        longest_of,
        network_size,
        training_memory,
    )
    from insight.training.losses import loss_memory
    from insight.training.optimizers import parameter_groups

    decoder, longest = decoder_of(config), longest_of(config)
    if sequence_length > longest:
        problem = f"exceeds max_sequence_length={longest}"
        remedy = "estimate a shorter sequence, or a network with a longer context"
        raise ConfigError(problem, remedy, option="sequence_length", value=sequence_length)
    dtype = torch.bfloat16 if precision.endswith("16-true") else torch.float32
    products = torch.float32 if precision == "32-true" else torch.bfloat16
    size = network_size(config, vocabulary_size, sequence_length, dtype, source_vocabulary_size)
    mixed = products if precision.endswith("16-mixed") else None
    shape = (batch_size, sequence_length)
    memory = training_memory(config, vocabulary_size, *shape, dtype, mixed, source_vocabulary_size)
    groups = parameter_groups(build_without_memory(config, vocabulary_size, source_vocabulary_size))
    numbers = {group.role: sum(p.numel() for p in group.parameters.values()) for group in groups}
    weights = size.num_parameters * dtype.itemsize
    states = sum(count * optimizer.numbers_kept(role) for role, count in numbers.items()) * dtype.itemsize
    loss = loss_memory(batch_size * sequence_length, decoder.hidden_size, vocabulary_size, products, dtype)
    head_gradient = decoder.hidden_size * vocabulary_size * dtype.itemsize
    in_loss = memory.activations + loss.kept + max(loss.logits + loss.casts, loss.scaled)
    in_backward = memory.peak + head_gradient
    return {
        "num_parameters": size.num_parameters,
        "num_active_parameters": size.num_active_parameters,
        "flops_per_token_forward": size.flops_per_token,
        "flops_per_token_training": 3 * size.flops_per_token,
        "vocabulary_size": vocabulary_size,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "precision": precision,
        "optimizer": type(optimizer).__name__,
        "weight_bytes": weights,
        "gradient_bytes": weights,
        "optimizer_bytes": states,
        "activation_bytes": memory.activations,
        "peak_activation_bytes": memory.peak_activations,
        "logits_bytes": loss.logits,
        "peak_bytes": weights + states + max(in_loss, in_backward),
        **_cache(size.cache, sequence_length, dtype),
    }


def _cache(layers: Any, sequence_length: int, dtype: torch.dtype) -> dict[str, Any]:
    if layers is None:
        return {"cache_layers": None}
    per_token, fixed = (sum(getattr(layer, name) for layer in layers) for name in ("per_token", "fixed"))
    return {
        "cache_dtype": str(dtype).removeprefix("torch."),
        "cache_bytes_per_token": per_token,
        "cache_fixed_bytes": fixed,
        "cache_bytes": fixed + per_token * sequence_length,
        "cache_layers": [{"fixed": layer.fixed, "per_token": layer.per_token} for layer in layers],
    }


def _preset(name: str) -> NetworkChoice:
    from insight.models import PRESETS

    if name not in PRESETS:
        match = nearest(name, PRESETS)
        remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(PRESETS)}"
        raise ConfigError(f"there is no preset {name!r}", remedy)
    preset = PRESETS[name]
    title = f"{name} ({preset.source}), vocabulary {preset.vocabulary_size:,}"
    return NetworkChoice(title, preset.config, preset.vocabulary_size)


def _network_alone(content: dict[str, Any]) -> NetworkConfig:
    from insight.api.parsing import Parser, instantiate, parse, raise_all
    from insight.models import DecoderConfig, EncoderDecoderConfig

    parser = Parser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    kind = str(content["class_path"]).rpartition(".")[2]
    described = EncoderDecoderConfig if kind == "EncoderDecoderConfig" else DecoderConfig
    parser.add_argument("--network", type=described)
    config: Any
    config, mistakes = parse(parser, {"network": content}, [])
    raise_all(mistakes)
    config, mistakes = instantiate(parser, config)
    raise_all(mistakes)
    network: NetworkConfig = config.network
    return network


@one_command()
def _of_run(arguments: list[str], title: str) -> NetworkChoice:
    from insight.api.configuration import InsightCLI

    cli = InsightCLI("check", arguments)
    return NetworkChoice(
        title,
        cli.model.network_config,
        _vocabulary_size(cli.config.data.init_args.get("tokenizer")),
        *_batch_shape(cli.datamodule),
        cli.config.trainer.precision,
        cli.model.optimizer_config,
    )


def _batch_shape(data: Any) -> tuple[int | None, int | None]:
    """Rows of a batch and tokens of a row, as far as the configuration states them."""
    from insight.data.text_data_module import TextDataModule

    if isinstance(data, TextDataModule):
        return data.batch_shape
    return getattr(data, "batch_size", None), getattr(data, "sequence_length", None)


def _vocabulary_size(tokenizer: Any) -> int | None:
    """The number of tokens that the configuration states or implies; ``None`` if it depends on the text."""
    from insight.runtime.component import component_from_dict

    described = tokenizer.as_dict() if hasattr(tokenizer, "as_dict") else tokenizer
    try:
        config: Any = component_from_dict(described)
        return int(getattr(config, "vocabulary_size", 0) or config.build(()).vocabulary_size)
    except InsightError:
        return None


def _facts(preset: Preset) -> dict[str, Any]:
    from insight.models import EncoderDecoderConfig
    from insight.models.estimate import build_without_memory, decoder_of

    config = preset.config
    network = build_without_memory(config, preset.vocabulary_size)
    decoder = decoder_of(config)
    encoder = config.encoder.num_layers if isinstance(config, EncoderDecoderConfig) else 0
    return {
        "num_parameters": network.num_parameters(),
        "num_layers": decoder.num_layers + encoder,
        "hidden_size": decoder.hidden_size,
        "max_sequence_length": decoder.max_sequence_length,
        "vocabulary_size": preset.vocabulary_size,
        "source": preset.source,
    }
