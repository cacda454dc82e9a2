"""``insight translate``: translate a file or standard input, line by line."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from insight.api.translate import STANDARD_INPUT, TranslatedFile, TranslationOptions, translate_file
from insight.cli.arguments import CommandParser, add_parameters, chosen
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.formats import format_duration, safe_text
from insight.runtime.messages import say, silence_libraries

_SECONDS_BETWEEN_LINES = 10.0
_EPILOGUE = """\
examples:
  insight translate --checkpoint runs/translation/1 english.txt --output spanish.txt
  echo "In the beginning" | insight translate --checkpoint runs/translation/1 -
  insight translate --checkpoint runs/translation/1 english.txt --n_best 5 --json > five.jsonl

Each line of FILE is a sentence and becomes one line; blank lines stay blank. A translation never depends on
the other lines. If the command with --output is interrupted or killed, repeating it continues where it was.
"""


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    source = _only_source(options.files)
    if options.output == "":
        raise ConfigError("is empty", "name a file, or leave the option out", option="--output", value="")
    settings = TranslationOptions(**chosen(options, TranslationOptions))
    silence_libraries()
    if source == STANDARD_INPUT and sys.stdin.isatty():
        say("type a sentence and press Enter; Ctrl-D on an empty line ends")
    given = chosen(options, translate_file) | {"source": source, "options": settings}
    try:
        with _progress(shows_bar=options.output is not None or not sys.stdout.isatty()) as progress:
            done = translate_file(**{"output": _print, **given, "progress": progress})
    except KeyboardInterrupt as error:
        if options.output is None and source != STANDARD_INPUT:
            error.add_note("with --output FILE the same command would go on where it was")
        raise
    say(_summary(done))
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="insight translate",
        description="Translate a text file, or standard input as it comes, one sentence in each line.",
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    about = "a text file with a sentence in each line; - or nothing is standard input"
    parser.add_argument("files", nargs="*", metavar="FILE", help=about)
    add_parameters(parser, translate_file, ("checkpoint", "to", "device", "json", "invalid_text"))
    about = (
        "file to make, which must not exist; without it standard output. Repeating the command after an "
        "interruption continues"
    )
    parser.add_argument("--output", metavar="PATH", help=about)
    add_parameters(parser.add_argument_group("how to translate"), TranslationOptions)
    return parser


def _only_source(files: Sequence[str]) -> str:
    """The one file that the user named; nothing is standard input."""
    if not files:
        return STANDARD_INPUT
    if not all(files):
        raise ConfigError("is empty", "name a file, or leave it out", option="FILE", value="")
    source = files[0]
    if source != STANDARD_INPUT and " " in " ".join(files) and not Path(source).exists():
        sentence = " ".join(files)
        remedy = f"to translate these words: echo {shlex.quote(sentence)} | insight translate ... -"
        raise DataError(f"FILE={source}: there is no such file", remedy)
    if len(files) > 1:
        # One output for each would need names for them, which a loop of the shell gives.
        problem = f"{len(files)} files are named, and one is translated at a time"
        remedy = "use a loop: for file in ...; do insight translate ... $file --output $file.out; done"
        raise ConfigError(problem, remedy, option="FILE", value=" ".join(files))
    return source


def _print(lines: Sequence[str]) -> None:
    """Print finished lines at once, so that whoever waits for them gets them."""
    if sys.stdout.isatty():
        # Generated text must not drive a terminal; a file or a pipe receives it unchanged.
        lines = [safe_text(line, len(line)) for line in lines]
    text = "".join(f"{line}\n" for line in lines)
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        print(text, end="", flush=True)
        return
    sys.stdout.buffer.write(text.encode("utf-8", errors="replace"))  # whatever the console's encoding is
    sys.stdout.buffer.flush()


def _summary(done: TranslatedFile) -> str:
    lines = done.num_lines - done.num_kept
    facts = [f"translated {lines:,} {'line' if lines == 1 else 'lines'} in {format_duration(done.seconds)}"]
    if done.num_kept:
        facts.append(f"{done.num_kept:,} were there already")
    if done.num_blank:
        facts.append(f"{done.num_blank:,} blank")
    if done.num_cut:
        facts.append(f"{done.num_cut:,} cut at the longest sentence that the model reads")
    return f"{', '.join(facts)}; decoding: {done.signature}"


@contextlib.contextmanager
def _progress(shows_bar: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A function that shows the progress: a bar on a terminal, elsewhere a line at intervals."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        if not shows_bar:  # the translations appear on the same terminal
            yield lambda done, total: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task("lines", total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)
        return
    yield _PlainProgress()


class _PlainProgress:
    """Prints a line with the time left at intervals."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._next = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._first is None:
            # The time of loading does not count, nor do the lines of an earlier command.
            self._first, self._next = (now, done), now + _SECONDS_BETWEEN_LINES
        if now < self._next or done == total:
            return
        self._next = now + _SECONDS_BETWEEN_LINES
        began, before = self._first
        rate = (done - before) / (now - began) if now > began else 0.0
        left = f", {format_duration((total - done) / rate)} left" if total and rate else ""
        say(f"translated {done:,}{f'/{total:,}' if total else ''} lines{left}")
