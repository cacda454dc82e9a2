"""``insight model``: published networks, their configurations, what a network costs, means of checkpoints."""

from __future__ import annotations

import argparse
from typing import Any

from insight.api.average import average_weights
from insight.api.estimate import choose_network, estimate, list_networks
from insight.cli.arguments import CommandParser, add_action, add_parameters, chosen
from insight.cli.commands import COMMANDS
from insight.runtime.formats import format_bytes, format_count
from insight.runtime.json_files import print_json, to_text
from insight.runtime.messages import aligned, silence_libraries


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    silence_libraries()
    options.run(options)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight model", description=COMMANDS["model"].summary)
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")
    add_action(actions, "list", "the published networks that can be built by name", _list)
    show = add_action(actions, "show", "a network's configuration, to be put under model.network", _show)
    add_parameters(show, estimate, ("name", "config"), positional=("name",))
    summary = "parameters, memory and operations of a network, without building it"
    add_parameters(add_action(actions, "estimate", summary, _estimate), estimate, positional=("name",))
    mean = add_action(
        actions, "average", "one model out of the last checkpoints of a run, their mean", _average
    )
    add_parameters(mean, average_weights, positional=("checkpoints",))
    return parser


def _list(options: argparse.Namespace) -> None:
    networks = list_networks()
    if options.json:
        print_json(networks)
        return
    rows = [("name", "parameters", "layers", "hidden", "context", "source")]
    for about in networks:
        numbers = (str(about["num_layers"]), f"{about['hidden_size']:,}", f"{about['max_sequence_length']:,}")
        rows.append((about["name"], format_count(about["num_parameters"]), *numbers, about["source"]))
    print(aligned(rows, words=(0, len(rows[0]) - 1)))


def _show(options: argparse.Namespace) -> None:
    import yaml

    network = choose_network(options.name, options.config)
    described = network.config.to_dict()
    if options.json:
        print_json(described)
        return
    print(f"# {network.title}")
    print(yaml.safe_dump(_short_names(described), sort_keys=False, allow_unicode=True, width=100), end="")


def _short_names(described: Any) -> Any:
    """The description with Insight's own classes by their short names, as in YAML."""
    if isinstance(described, list):
        return [_short_names(item) for item in described]
    if not isinstance(described, dict):
        return described
    shortened = {key: _short_names(value) for key, value in described.items()}
    path = shortened.get("class_path", "")
    if path.startswith("insight."):
        shortened["class_path"] = path.rpartition(".")[2]
    return shortened


def _estimate(options: argparse.Namespace) -> None:
    network, numbers = estimate(**chosen(options, estimate))
    print(to_text(numbers) if options.json else f"{network.title}\n{_text(numbers)}")


def _average(options: argparse.Namespace) -> None:
    result = average_weights(**chosen(options, average_weights))
    if options.json:
        print_json(result.to_record())
        return
    print(f"{result.path}  (the mean of steps {', '.join(f'{step:,}' for step in result.steps)})")


def _text(estimate: dict[str, Any]) -> str:
    size = {name: format_bytes(value) for name, value in estimate.items() if name.endswith("_bytes")}
    active = estimate["num_active_parameters"]
    some = f", of which a token uses {active:,}" if active != estimate["num_parameters"] else ""
    tokens = f"{estimate['batch_size']:,} x {estimate['sequence_length']:,} tokens"
    forward, both = (format_count(estimate[f"flops_per_token_{way}"]) for way in ("forward", "training"))
    kept, most = size["activation_bytes"], size["peak_activation_bytes"]
    lines = [
        ("parameters", f"{estimate['num_parameters']:,}{some}"),
        ("FLOPs a token", f"{forward} forward, {both} in training"),
        ("training", f"{tokens}, {estimate['precision']}, {estimate['optimizer']}, not compiled"),
        ("  weights", size["weight_bytes"]),
        ("  gradients", size["gradient_bytes"]),
        ("  optimizer", size["optimizer_bytes"]),
        ("  activations", f"{kept} kept for the backward pass, {most} at most"),
        ("  logits", f"{size['logits_bytes']}, a part at a time"),
        ("  peak", f"{size['peak_bytes']} in all"),
    ]
    if estimate["cache_layers"] is None:
        lines.append(("cache", "none of this length: later tokens would change earlier keys"))
    else:
        each, fixed = format_bytes(estimate["cache_bytes_per_token"]), estimate["cache_fixed_bytes"]
        text = f"{each} a token and {size['cache_fixed_bytes'] if fixed else 'nothing'} whatever the length, "
        lines.append(("cache", f"{text}{size['cache_bytes']} a sequence in {estimate['cache_dtype']}"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines)
