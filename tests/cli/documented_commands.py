"""The commands that README.md, docs/ and the comments of configs/ show, found in their text.

A command is a line of a ``bash`` block, and any other line of code, span of code in a sentence or comment
that begins with the name of a program. The working folder of the tests has files and folders with the names
that the pages use, such as ``RUN``; ``PLACEHOLDERS`` are the words that cannot be a file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("insight", "python", "torchrun", "srun", "sbatch", "scontrol", "kubectl", "dask", "make", "pip")
PLACEHOLDERS = {"MORE": "4", "NAME": "bloom-560m"}
OF_TRANSLATION = {"RUN": "runs/translation/1", "FILE": "english.txt"}
_PROGRAM = rf"(?:{'|'.join(PROGRAMS)}) "
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_COMMENT = re.compile(r"^#   (?=\S)(.*)$", re.MULTILINE)
# A remark at the end of a line: behind #, or in parentheses behind several spaces.
_REMARK = re.compile(r"(?:\s+#\s.*|\s{2,}\(.*\))$")
_OPTIONAL = re.compile(r"\s(?:\[[^\]]*\]|\.\.\.)")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Args:
        page: Path of the page below the repository.
        text: The command as it is written, without remarks and without what is optional in it.
        in_sentence: Whether it stands in a sentence, where ``insight fit`` may be a name and no command.
    """

    page: str
    text: str
    in_sentence: bool = False

    @property
    def words(self) -> list[str]:
        """The words as a shell separates them, without a program before that is piped into it."""
        words = shlex.split(self.text.rpartition(" | ")[2])
        found = PLACEHOLDERS | (OF_TRANSLATION if "translate" in words else {})
        return [found.get(word, word) for word in words]

    @property
    def is_name(self) -> bool:
        """Whether a sentence only names the command: ``insight cache list``."""
        words = self.words
        return self.in_sentence and len(words) <= 3 and all(re.fullmatch(r"[a-z]+", word) for word in words)

    @property
    def configs(self) -> list[str]:
        """The shipped configurations that it names: ``quickstart``, ``attention/latent``."""
        pairs = zip(self.words, self.words[1:], strict=False)
        return [
            value.removeprefix("configs/").removesuffix(".yaml")
            for option, value in pairs
            if option == "--config"
        ]


def pages() -> list[Path]:
    """Every page that may show commands."""
    configs = [path for path in (ROOT / "configs").rglob("*") if path.suffix in (".yaml", ".sbatch")]
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(configs)]


def documented_commands() -> list[Command]:
    """The commands of all pages, each once a page, in their order."""
    found = (
        command
        for path in pages()
        for command in commands_of(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    )
    return list(dict.fromkeys(found))


def commands_of(text: str, page: str) -> Iterator[Command]:
    """The commands in the text of a page; configurations have them in their comments."""
    sentences = text
    if page.endswith(".md"):
        sentences = _BLOCK.sub("", text)
        blocks = [(language == "bash", block.splitlines()) for language, block in _BLOCK.findall(text)]
    else:
        blocks = [(False, _COMMENT.findall(text))]
    for is_shell, lines in blocks:
        for line in filter(None, map(str.strip, lines)):
            if is_shell or re.match(_PROGRAM, line):
                yield Command(page, _plain(line))
    for span in _SPAN.findall(sentences):
        if re.match(_PROGRAM, span):
            for alternative in _alternatives(" ".join(span.split())):
                yield Command(page, _plain(alternative), in_sentence=True)


def _plain(line: str) -> str:
    return _OPTIONAL.sub("", _REMARK.sub("", line))


def _alternatives(span: str) -> list[str]:
    r"""``insight cache list`` and ``insight cache pin`` of ``insight cache list\|pin`` in a table."""
    *before, last = span.split(" ")
    return [" ".join([*before, one]) for one in last.split("\\|")]
