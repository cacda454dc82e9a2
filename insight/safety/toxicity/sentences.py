"""The labelled sentences of ``sentences.txt``: templates filled in, in two parts that share none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from insight.runtime.errors import DataError

SENTENCES_PATH = Path(__file__).with_name("sentences.txt")
_HEADING = re.compile(r"\[(?:words (?P<words>\w+)|(?P<part>training|held-out) (?P<label>toxic|civil))\]")
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class LabelledSentence:
    """One sentence.

    Attributes:
        text: It.
        is_toxic: Its label.
        is_held_out: Whether it is kept for measuring.
        template: What it was made of; the sentence itself where it has no places.
    """

    text: str
    is_toxic: bool
    is_held_out: bool
    template: str


def read_sentences(path: Path = SENTENCES_PATH) -> list[LabelledSentence]:
    """All sentences in the order of the file.

    Raises:
        DataError: The file is missing or a line of it makes no sense; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", "give a text file in UTF-8") from error
    words: dict[str, list[str]] = {}
    found: list[LabelledSentence] = []
    heading: re.Match[str] | None = None
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("["):
            heading = _HEADING.fullmatch(text)
            if heading is None:
                raise DataError(f"{path}, line {number}: {text} is no known heading", "see the other ones")
        elif heading is None:
            raise DataError(f"{path}, line {number}: stands before any heading", "put it below one")
        elif name := heading["words"]:
            words[name] = [word.strip() for word in text.split(",")]
        else:
            is_toxic, is_held_out = heading["label"] == "toxic", heading["part"] == "held-out"
            for filled in _fill(text, words, f"{path}, line {number}"):
                found.append(LabelledSentence(filled, is_toxic, is_held_out, text))
    return found


def _fill(template: str, words: dict[str, list[str]], where: str) -> list[str]:
    """The template with each word in its place; several places take their words side by side."""
    places = _PLACE.findall(template)
    for place in places:
        if place not in words:
            raise DataError(f"{where}: there are no words for {{{place}}}", "add [words ...] above it")
    count = max((len(words[place]) for place in places), default=1)
    filled = []
    for index in range(count):
        text = template
        for place in places:
            text = text.replace(f"{{{place}}}", words[place][index % len(words[place])], 1)
        filled.append(text)
    return filled
