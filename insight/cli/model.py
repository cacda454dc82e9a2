"""``insight model``: the published networks that are known, what they are made of, what a network costs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from insight.cli import model_estimate
from insight.cli.arguments import CommandParser
from insight.cli.commands import COMMANDS
from insight.cli.network_choice import add_network, chosen_network
from insight.runtime.messages import silence_libraries

if TYPE_CHECKING:
    from insight.models import Preset


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    silence_libraries()
    exit_code: int = options.action(options)
    return exit_code


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight model", description=COMMANDS["model"].summary)
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")

    listing = actions.add_parser("list", help="the published networks that can be built by name")
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    listing.set_defaults(action=_list)

    show = actions.add_parser("show", help="a network's configuration, to be put under model.network")
    add_network(show)
    show.add_argument("--json", action="store_true", help="print it as JSON instead of YAML")
    show.set_defaults(action=_show)

    estimate = actions.add_parser(
        "estimate", help="parameters, memory and operations of a network, without building it"
    )
    model_estimate.add_arguments(estimate)
    return parser


def _list(options: argparse.Namespace) -> int:
    from insight.models import PRESETS
    from insight.runtime.formats import format_count
    from insight.runtime.messages import aligned

    facts = {name: _facts(preset) for name, preset in PRESETS.items()}
    if options.json:
        print(json.dumps([{"name": name, **about} for name, about in facts.items()]))
        return 0
    rows = [("name", "parameters", "layers", "hidden", "context", "source")]
    for name, about in facts.items():
        numbers = (str(about["num_layers"]), f"{about['hidden_size']:,}", f"{about['max_sequence_length']:,}")
        rows.append((name, format_count(about["num_parameters"]), *numbers, about["source"]))
    print(aligned(rows, words=(0, len(rows[0]) - 1)))
    return 0


def _facts(preset: Preset) -> dict[str, Any]:
    from insight.models import EncoderDecoderConfig
    from insight.models.estimate import build_without_memory, decoder_of

    config = preset.config
    network = build_without_memory(config, preset.vocabulary_size)
    decoder = decoder_of(config)
    num_layers = decoder.num_layers
    if isinstance(config, EncoderDecoderConfig):
        num_layers += config.encoder.num_layers
    return {
        "num_parameters": network.num_parameters(),
        "num_layers": num_layers,
        "hidden_size": decoder.hidden_size,
        "max_sequence_length": decoder.max_sequence_length,
        "vocabulary_size": preset.vocabulary_size,
        "source": preset.source,
    }


def _show(options: argparse.Namespace) -> int:
    import yaml

    chosen = chosen_network(options)
    described = chosen.config.to_dict()
    if options.json:
        print(json.dumps(described))
        return 0
    print(f"# {chosen.title}")
    print(yaml.safe_dump(_short_names(described), sort_keys=False, allow_unicode=True, width=100), end="")
    return 0


def _short_names(described: Any) -> Any:
    """The same with Insight's own classes by their names alone, which is how they are found in YAML."""
    if isinstance(described, list):
        return [_short_names(item) for item in described]
    if not isinstance(described, dict):
        return described
    shortened = {key: _short_names(value) for key, value in described.items()}
    path = shortened.get("class_path", "")
    if path.startswith("insight."):
        shortened["class_path"] = path.rpartition(".")[2]
    return shortened
