"""``insight generate``: print the text of a model while it is generated."""

from __future__ import annotations

import sys

from insight.api.generate import GenerationSettings, TranslatedPrompt, open_text
from insight.cli.arguments import CommandParser, add_parameters, chosen, read_standard_input, text_argument
from insight.cli.commands import COMMANDS
from insight.runtime.formats import safe_text
from insight.runtime.json_files import print_json
from insight.runtime.messages import silence_libraries
from insight.runtime.run_folder import find_checkpoint


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    settings = GenerationSettings(**chosen(options, GenerationSettings))
    find_checkpoint(options.checkpoint)  # an error appears before the user types a prompt
    silence_libraries()
    prompt = read_standard_input() if options.prompt is None else options.prompt
    writer = open_text(**chosen(options, open_text) | {"prompt": prompt, "settings": settings})
    if options.json:
        for _ in writer:
            pass
        result = writer.result
        print_json({"prompt": prompt, "text": result.text, "finish_reason": result.finish_reason})
        return 0
    if isinstance(writer, TranslatedPrompt):
        prompt = ""  # a translation does not continue it
    _print(prompt)
    for piece in writer:
        _print(piece)
    print()
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight generate", description=COMMANDS["generate"].summary)
    about = "the text to continue; standard input if not given"
    parser.add_argument("prompt", nargs="?", type=text_argument, metavar="PROMPT", help=about)
    add_parameters(parser, open_text, ("checkpoint", "device"))
    add_parameters(parser, GenerationSettings)
    parser.add_argument("--json", action="store_true", help="print prompt, text and why it ended as JSON")
    return parser


def _print(text: str) -> None:
    # Generated text must not drive a terminal; a file or a pipe receives it unchanged.
    print(safe_text(text, len(text)) if sys.stdout.isatty() else text, end="", flush=True)
