"""The table of commands, which `insight --help` lists, with the module of each."""

from __future__ import annotations

import textwrap
from typing import NamedTuple


class Command(NamedTuple):
    """The word after ``insight``, the heading under which it is listed, one line of help, and its module.

    The module in ``insight.cli`` is imported at first use. Its ``run`` gets the name and the arguments, and
    returns the exit code.
    """

    name: str
    group: str
    summary: str
    module: str


COMMANDS = {
    command.name: command
    for command in (
        Command("fit", "train", "train, validate, test, sample and report from one YAML file", "fit"),
        Command("validate", "train", "measure a checkpoint on the validation text", "evaluate"),
        Command("test", "train", "measure a checkpoint on the test text", "evaluate"),
        Command("predict", "train", "how well a checkpoint predicts each document of a text", "evaluate"),
        Command("check", "train", "check everything that can be checked without training", "check"),
        Command("demo", "train", "train a small model on six novels in minutes, without a network", "fit"),
        Command("tokenizer", "text", "train, encode, decode, inspect, prune", "tokenizer"),
        Command("cache", "text", "list, verify, pin and clear the token stores that were kept", "cache"),
        Command("model", "network", "list published networks, estimate one, average checkpoints", "model"),
        Command("import", "network", "read a model of another library as a run", "interchange"),
        Command("export", "network", "write a model for another library, which proves it", "interchange"),
        Command("generate", "use", "write text with a checkpoint", "generate"),
        Command("translate", "use", "translate a file or standard input, line by line", "translate"),
        Command("quantize", "compress", "make a model smaller or faster, as measured here", "quantize"),
        Command("benchmark", "compress", "compare models: quality, size, memory and speed", "benchmark"),
        Command("redteam", "safety", "measure what a model can be made to do; compare two models", "redteam"),
    )
}

OTHER_NAMES = {
    "report": "the report of a run is report.html in its folder, which `insight fit` writes",
    "compare": "did you mean 'benchmark', or `insight redteam compare` for their safety?",
    "convert": "did you mean 'import' or 'export'?",
    "train": "did you mean 'fit'?",
    "evaluate": "did you mean 'validate'?",
    "eval": "did you mean 'validate'?",
    "resume": "did you mean `insight fit --resume`?",
    "sample": "did you mean 'generate'?",
    "tokenize": "did you mean `insight tokenizer encode`?",
    "encode": "did you mean `insight tokenizer encode`?",
    "decode": "did you mean `insight tokenizer decode`?",
    "compress": "did you mean 'quantize'?",
    "prune": "did you mean 'quantize'?",
    "optimize": "did you mean 'quantize'?",
    "average": "did you mean `insight model average`?",
    "estimate": "did you mean `insight model estimate`?",
    "attack": "did you mean 'redteam'?",
    "safety": "did you mean 'redteam'?",
    "version": "did you mean 'insight --version'?",
}
"""The remedies for names that are no commands, where their spelling does not lead to one."""

_EPILOGUE = """\
everywhere:
  --help                 what a command does and takes (also: insight COMMAND --help)
  --allow_package NAME   let files name classes of this package of your own (may be given again)
  --debug                show the traceback of an error
  --version              print the version

begin with:  insight demo
"""


def overview() -> str:
    """The text of ``insight --help``."""
    width = max(map(len, COMMANDS))
    lines = ["usage: insight COMMAND [options]", "", "Train, compress and safety-test transformers."]
    group = ""
    for command in COMMANDS.values():
        if command.group != group:
            group = command.group
            lines += ["", f"{group}:"]
        text, indent = f"  {command.name:{width}}  {command.summary}", " " * (width + 4)
        lines += textwrap.wrap(text, width=100, subsequent_indent=indent)
    return "\n".join([*lines, "", _EPILOGUE])
