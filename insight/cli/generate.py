"""``insight generate``: print the text of a model while it is generated."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from insight.api.generate import GenerationSettings, TranslatedPrompt, TranslatedText, open_text
from insight.api.translate import hypothesis_records
from insight.cli.arguments import CommandParser, add_parameters, chosen, read_standard_input, text_argument
from insight.cli.commands import COMMANDS
from insight.runtime.errors import ConfigError
from insight.runtime.formats import safe_text
from insight.runtime.json_files import print_json
from insight.runtime.messages import say, silence_libraries
from insight.runtime.run_folder import find_checkpoint

if TYPE_CHECKING:
    from insight.generation import Generation


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    settings = GenerationSettings(**chosen(options, GenerationSettings))
    if settings.n_best > 1 and not options.json:
        problem, remedy = "needs JSON, since a prompt has one continuation otherwise", "add --json"
        raise ConfigError(problem, remedy, option="n_best", value=settings.n_best)
    find_checkpoint(options.checkpoint)  # an error appears before the user types a prompt
    silence_libraries()
    prompt = read_standard_input() if options.prompt is None else options.prompt
    writer = open_text(**chosen(options, open_text) | {"prompt": prompt, "settings": settings})
    if options.json:
        for _ in writer:
            pass
        print_json({"prompt": prompt, **_record(writer.result)})
        return 0
    if isinstance(writer, TranslatedPrompt):
        prompt = ""  # a translation does not continue it
    _print(prompt)
    for piece in writer:
        _print(piece)
    print()
    if settings.searches:
        say(f"decoding: {writer.result.signature}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight generate", description=COMMANDS["generate"].summary)
    about = "the text to continue; standard input if not given"
    parser.add_argument("prompt", nargs="?", type=text_argument, metavar="PROMPT", help=about)
    add_parameters(parser, open_text, ("checkpoint", "device"))
    names = [field.name for field in fields(GenerationSettings)]
    searching = names[names.index("num_beams") :]
    add_parameters(parser, GenerationSettings, names[: -len(searching)])
    group = parser.add_argument_group("searching for the likeliest text, and n-best lists")
    add_parameters(group, GenerationSettings, searching)
    about = "print prompt, text and why it ended as JSON; with a search, all its texts and their scores"
    parser.add_argument("--json", action="store_true", help=about)
    return parser


def _record(result: Generation | TranslatedText) -> dict[str, Any]:
    record: dict[str, Any] = {"text": result.text, "finish_reason": result.finish_reason}
    if result.hypotheses:
        record["hypotheses"] = hypothesis_records(result.hypotheses)
    return record | ({"decoding": result.signature} if result.signature else {})


def _print(text: str) -> None:
    # Generated text must not drive a terminal; a file or a pipe receives it unchanged.
    print(safe_text(text, len(text)) if sys.stdout.isatty() else text, end="", flush=True)
