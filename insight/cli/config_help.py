"""``--help`` of the commands that take a configuration, read quickly from the source of the classes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from insight.api.config_files import DEFAULT_CLASSES
from insight.api.source_schema import Parameter, insight_schema

_COMMAND_OPTIONS = {
    "resume": "a run folder (its newest checkpoint), a .ckpt file, auto for the newest run of run.name, or "
    "auto_or_new, which begins one where there is none (for job scripts)",
    "init_from": "a run folder or a .ckpt file whose weights a new run begins with",
    "checkpoint": "a run folder (its best checkpoint), a .ckpt file, or the folder of a quantized model",
    "output": "the file to write; standard output if not given",
    "json": "print what was found as JSON; what is no finite number is null",
}
_OPTIONS_OF = {
    "fit": ("resume", "init_from"),
    "check": ("json",),
    "validate": ("checkpoint", "json"),
    "test": ("checkpoint", "json"),
    "predict": ("checkpoint", "output"),
}
_FLAGS = frozenset({"json"})
_OWNERS = {"run": "RunConfig"} | {group: path.rpartition(".")[2] for group, path in DEFAULT_CLASSES.items()}
_WIDTH, _INDENT = 110, 6


def wants_help(arguments: list[str]) -> bool:
    """Whether the command line asks for help on the whole command."""
    return bool({"-h", "--help"} & set(arguments))


def config_help(command: str, summary: str) -> str:
    """The text of ``insight COMMAND --help``, with one line about the command as ``summary``."""
    lines = [f"usage: insight {command} --config FILE [--GROUP.OPTION VALUE ...]", "", f"{summary}", ""]
    lines += _entry(
        "--config FILE",
        "a YAML file, or the name of one that travels with Insight, such as quickstart; "
        "given again, later files change earlier ones",
    )
    for name in _OPTIONS_OF[command]:
        lines += _entry(f"--{name}" + ("" if name in _FLAGS else " VALUE"), _COMMAND_OPTIONS[name])
    lines += _entry("--seed NUMBER", "chooses initial weights and dropout (default: 0)")
    for group, owner in (_OWNERS | {"trainer": "Trainer"}).items():
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
        choices = schema.choices(_kind(parameter))
        if len(choices) == 1 and parameter.default not in (None, "None"):
            yield from _options(f"{prefix}.{name}", choices[0])
            continue
        text = parameter.explanation.replace("``", "").rstrip()
        if choices:
            text = f"{text} One of {', '.join(choices)}."
        if parameter.default is not None:
            text = f"{text} (default: {_default(parameter)})"
        yield from _entry(f"--{prefix}.{name} {_type(parameter)}", text)


def _kind(parameter: Parameter) -> str:
    """The class whose subclasses may be named, if there is one."""
    schema = insight_schema()
    names = [part.strip() for part in parameter.type_text.split("|")]
    return next((name for name in names if schema.is_kind(name) and name in schema), "")


def _type(parameter: Parameter) -> str:
    if _kind(parameter):
        return "CLASS"
    text = parameter.type_text.replace("Optional[", "").replace("Union[", "").replace("Literal[", "")
    return text.replace("]", "").replace("[", " of ").replace(" | ", "|").replace("'", "").upper()[:40]


def _default(parameter: Parameter) -> str:
    default = parameter.default or ""
    return {"None": "null", "True": "true", "False": "false"}.get(default, default.removesuffix("()"))


def _entry(option: str, text: str) -> list[str]:
    indent = " " * _INDENT
    return [f"  {option}", *textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)]
