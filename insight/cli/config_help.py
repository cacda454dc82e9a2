"""``--help`` of the commands that take a configuration, read quickly from the source of the classes."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator

from insight.api.early_checks import COMMAND_OPTIONS, GROUP_CLASSES
from insight.api.source_schema import insight_schema
from insight.cli.commands import COMMANDS

_JSON = {"json": "print what was found as JSON; what is no finite number is null"}
_OF_OUTPUT: dict[str, dict[str, str]] = {
    "fit": {},
    "test": {
        "against RUN": "a tested translation run: also say whether the translations differ from its by more "
        "than chance",
        **_JSON,
    },
    "predict": {"output VALUE": "the file to write; standard output if not given"},
}
_WIDTH, _INDENT = 110, 6
_WRITTEN = {"None": "null", "True": "true", "False": "false"}


def print_help(command: str, arguments: list[str], template: str | None = None) -> bool:
    """Whether the command line asks for help on the whole command, which is printed then.

    The text is made from the source of the classes, unless a ``template`` for the command's summary is given.
    """
    is_wanted = bool({"-h", "--help"} & set(arguments))
    if is_wanted:
        summary = COMMANDS[command].summary
        print(template.format(summary=summary) if template else _config_help(command, summary), end="")
    return is_wanted


def _config_help(command: str, summary: str) -> str:
    lines = [f"usage: insight {command} --config FILE [--GROUP.OPTION VALUE ...]", "", f"{summary}", ""]
    about = "a YAML file, or the name of one that travels with Insight, such as quickstart"
    lines += _entry("--config FILE", f"{about}; given again, later files change earlier ones")
    for name, text in COMMAND_OPTIONS[command].items():
        lines += _entry(f"--{name} VALUE", text)
    for name, text in _OF_OUTPUT.get(command, _JSON).items():
        lines += _entry(f"--{name}", text)
    lines += _entry("--seed NUMBER", "chooses initial weights and dropout (default: 0)")
    for group, owner in GROUP_CLASSES.items():
        lines += ["", f"{group} ({owner}):", *_options(group, owner)]
    lines += [
        "",
        "An option that takes a class takes its name; options of the class follow by dots, for example",
        "  --model.optimizer AdamW --model.optimizer.learning_rate 0.001",
        f"and `insight {command} --model.optimizer.help AdamW` lists them.",
    ]
    return "\n".join(lines) + "\n"


def _options(prefix: str, owner: str) -> Iterator[str]:
    schema = insight_schema()
    for name, parameter in (schema.parameters(owner) or {}).items():
        kind = ast.unparse(parameter.annotation) if parameter.annotation else ""
        classes = [part.strip() for part in kind.split("|")]
        choices = schema.choices(next((one for one in classes if schema.is_kind(one) and one in schema), ""))
        if len(choices) == 1 and parameter.default not in (None, "None"):
            yield from _options(f"{prefix}.{name}", choices[0])
            continue
        text = parameter.explanation.replace("``", "").rstrip()
        if choices:
            text = f"{text} One of {', '.join(choices)}."
        if parameter.default is not None:
            default = parameter.default.removesuffix("()")
            text = f"{text} (default: {_WRITTEN.get(default, default)})"
        kind = re.sub(r"Optional\[|Union\[|Literal\[|[]']", "", kind).replace("[", " of ").replace(" | ", "|")
        yield from _entry(f"--{prefix}.{name} {'CLASS' if choices else kind.upper()[:40]}", text)


def _entry(option: str, text: str) -> list[str]:
    indent = " " * _INDENT
    return [f"  {option}", *textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)]
