"""``insight import`` and ``insight export``: models from other libraries, and for them."""

from __future__ import annotations

import shlex

from insight.api.export_model import ExportResult, export_model
from insight.api.import_model import import_model
from insight.cli.arguments import CommandParser, add_parameters, chosen
from insight.cli.commands import COMMANDS
from insight.runtime.formats import format_bytes
from insight.runtime.json_files import print_json
from insight.runtime.messages import silence_libraries


def run(name: str, arguments: list[str]) -> int:
    """Run one of the two commands."""
    parser = CommandParser(prog=f"insight {name}", description=COMMANDS[name].summary)
    return _import(parser, arguments) if name == "import" else _export(parser, arguments)


def _import(parser: CommandParser, arguments: list[str]) -> int:
    add_parameters(parser, import_model, positional=("source",))
    options = parser.parse_args(arguments)
    silence_libraries()
    folder = import_model(**chosen(options, import_model)).path
    name = shlex.quote(str(folder))
    config = f"insight fit --config {name}/config.yaml --init_from {name}"
    print(f"{folder}  (text: insight generate --checkpoint {name} Once; train it on: {config})")
    return 0


def _export(parser: CommandParser, arguments: list[str]) -> int:
    add_parameters(parser, export_model, positional=("checkpoint",))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    silence_libraries()
    result = export_model(**chosen(options, export_model))
    if options.json:
        print_json(result.to_record())
    else:
        print(_text(result))
    return 0


def _text(result: ExportResult) -> str:
    lines = [f"{result.folder}  ({result.architecture}, {format_bytes(sum(result.files.values()))})"]
    if result.verification is not None:
        lines.append(f"{result.verification.runtime}: {result.verification.summary()}")
    elif result.reason:
        lines.append(f"not verified: {result.reason}")
    return "\n".join(lines)
