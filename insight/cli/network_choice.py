"""The network that a command is about: a preset's name, or the configuration of a run."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.api.config_files import read_config, resolve_config_options
from insight.runtime.errors import ConfigError, InsightError, nearest

if TYPE_CHECKING:
    from insight.models.estimate import NetworkConfig
    from insight.training import OptimizerConfig


@dataclass(frozen=True)
class NetworkChoice:
    """A network, and what is known about its use.

    Args:
        title: What it is, in a line.
        config: What builds it.
        vocabulary_size: Rows of its embedding, where that is known before the data.
        batch_size: Of the run, if one is configured.
        sequence_length: Likewise.
        precision: Likewise.
        optimizer: Likewise.
    """

    title: str
    config: NetworkConfig
    vocabulary_size: int | None = None
    batch_size: int | None = None
    sequence_length: int | None = None
    precision: str | None = None
    optimizer: OptimizerConfig | None = None


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add NAME and ``--config``."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of `insight model list`")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="or the network of this configuration: of a run, or what `insight model show` printed; given "
        "again, later files change earlier ones",
    )


def chosen_network(options: argparse.Namespace) -> NetworkChoice:
    """The network that NAME or ``--config`` mean.

    Raises:
        ConfigError: Both or neither is given, there is no such name, or a file is wrong.
    """
    if bool(options.name) == bool(options.config):
        raise ConfigError(
            "NAME and --config: give one of them", "for example `insight model show gpt2`; names: model list"
        )
    if options.name:
        return _preset(options.name)
    arguments = [f"--config={file}" for file in options.config]
    paths = [Path(argument.partition("=")[2]) for argument in resolve_config_options(arguments)]
    title = ", ".join(options.config)
    if len(paths) == 1:
        content = read_config(paths[0])
        if "class_path" in content:
            return NetworkChoice(title, _network_alone(content, title))
    return _of_run(arguments, title)


def _preset(name: str) -> NetworkChoice:
    from insight.models import PRESETS

    if name not in PRESETS:
        match = nearest(name, PRESETS)
        remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(PRESETS)}"
        raise ConfigError(f"there is no preset {name!r}", remedy)
    preset = PRESETS[name]
    title = f"{name} ({preset.source}), vocabulary {preset.vocabulary_size:,}"
    return NetworkChoice(title, preset.config, preset.vocabulary_size)


def _network_alone(content: dict[str, Any], title: str) -> NetworkConfig:
    import jsonargparse

    from insight.api.parser_messages import condense, user_mistake
    from insight.models import DecoderConfig, EncoderDecoderConfig

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    kind = str(content["class_path"]).rpartition(".")[2]
    described = EncoderDecoderConfig if kind == "EncoderDecoderConfig" else DecoderConfig
    parser.add_argument("--network", type=described)
    try:
        config: NetworkConfig = parser.instantiate(parser.parse_object({"network": content})).network
    except jsonargparse.ArgumentError as error:
        raise condense(str(error), parser) from error
    except (ValueError, TypeError) as error:
        raise user_mistake(error) or ConfigError(f"{title}: {error}", "see `insight model show`") from error
    return config


def _of_run(arguments: list[str], title: str) -> NetworkChoice:
    from insight.api.configuration import InsightCLI

    cli = InsightCLI("check", arguments)
    return NetworkChoice(
        title,
        cli.model.network_config,
        _vocabulary_size(cli.config.data.init_args.get("tokenizer")),
        getattr(cli.datamodule, "batch_size", None),
        getattr(cli.datamodule, "sequence_length", None),
        cli.config.trainer.precision,
        cli.model.optimizer_config,
    )


def _vocabulary_size(tokenizer: Any) -> int | None:
    """What the tokenizer is configured to have, or has without any text; ``None`` if only the text tells."""
    from insight.runtime.component import component_from_dict

    described = tokenizer.as_dict() if hasattr(tokenizer, "as_dict") else tokenizer
    try:
        config: Any = component_from_dict(described)
        return int(getattr(config, "vocabulary_size", 0) or config.build(()).vocabulary_size)
    except InsightError:
        return None
