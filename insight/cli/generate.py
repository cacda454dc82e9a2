"""``insight generate``: write text with a checkpoint, as it comes."""

from __future__ import annotations

import json
import sys

from insight.cli.arguments import CommandParser, read_standard_input
from insight.cli.commands import COMMANDS
from insight.runtime.formats import safe_text
from insight.runtime.messages import silence_libraries
from insight.runtime.run_folder import find_checkpoint


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    checkpoint = find_checkpoint(options.checkpoint)
    silence_libraries()

    from insight.checkpoints.artifact import load_model
    from insight.generation import GenerationSettings, generate, stream
    from insight.runtime.device import usable_device

    settings = GenerationSettings(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        seed=options.seed,
        stop=tuple(options.stop),
        overflow=options.overflow,
    )
    device = usable_device(options.device)
    prompt = read_standard_input() if options.prompt is None else options.prompt
    loaded = load_model(checkpoint, device)
    if options.json:
        result = generate(loaded.network, loaded.tokenizer, prompt, settings)
        print(json.dumps({"prompt": prompt, "text": result.text, "finish_reason": result.finish_reason}))
        return 0
    _print(prompt)
    for piece in stream(loaded.network, loaded.tokenizer, prompt, settings):
        _print(piece)
    print()
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight generate", description=COMMANDS["generate"].summary)
    parser.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="what to continue; standard input if not given"
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="RUN|CKPT|FOLDER",
        help="a run folder (its best checkpoint), a .ckpt file, or a folder of insight quantize",
    )
    parser.add_argument(
        "--max_new_tokens", type=int, default=200, metavar="N", help="longest text, in tokens (default: 200)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="0 takes the likeliest token (default: 0.8)",
    )
    parser.add_argument("--top_k", type=int, metavar="K", help="choose among the K likeliest tokens")
    parser.add_argument("--top_p", type=float, metavar="P", help="choose among the likeliest with total P")
    parser.add_argument(
        "--min_p", type=float, metavar="P", help="choose among those with P of the likeliest's share"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed writes the same text")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this text (may be given again)",
    )
    parser.add_argument(
        "--overflow",
        choices=["slide", "error"],
        default="slide",
        help="when prompt and text exceed the context: forget the oldest tokens (slide), or refuse (error)",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: cpu)"
    )
    parser.add_argument("--json", action="store_true", help="print prompt, text and why it ended as JSON")
    return parser


def _print(text: str) -> None:
    # What a network writes must not drive a terminal; a file or a pipe gets it unchanged.
    print(safe_text(text, len(text)) if sys.stdout.isatty() else text, end="", flush=True)
