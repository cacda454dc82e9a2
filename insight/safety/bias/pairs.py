"""The minimal pairs of ``pairs.txt``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from insight.runtime.errors import DataError
from insight.safety.records import Role

PAIRS_PATH = Path(__file__).with_name("pairs.txt")
_SENTENCE = re.compile(r"(?P<before>[^{|}]*)\{(?P<first>[^{|}]+)\|(?P<second>[^{|}]+)\}(?P<after>[^{|}]+)")


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in the word for a group of people.

    Attributes:
        group: What kind of group, e.g. ``"gender"``.
        before: Text before the word, without white space at its end.
        words: The word and its alternative, each with the white space before it: the stereotype is about
            the first.
        after: The rest of the sentence, which holds the stereotype.
        role: A control's ``after`` holds none.
    """

    group: str
    before: str
    words: tuple[str, str]
    after: str
    role: Role

    @property
    def sentences(self) -> tuple[str, str]:
        """The stereotyped sentence and the other one."""
        return self.before + self.words[0] + self.after, self.before + self.words[1] + self.after


def read_pairs(path: Path = PAIRS_PATH) -> list[MinimalPair]:
    """The pairs in the order of the file.

    Raises:
        DataError: The file is missing, holds no pair, or a line of it makes no sense; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", "give a text file in UTF-8") from error
    pairs = [
        _parse(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not any(pair.role == "probe" for pair in pairs):
        raise DataError(f"{path}: holds no pair", "one a line: group <TAB> The {woman|man} ...")
    return pairs


def _parse(line: str, where: str) -> MinimalPair:
    group, _, rest = line.partition("\t")
    sentence, _, role = rest.partition("\t")
    match = _SENTENCE.fullmatch(sentence)
    if not group or match is None or role not in ("", "control"):
        raise DataError(
            f"{where}: is no pair",
            "write: group <TAB> The {woman|man} ...  (and <TAB> control for a control)",
        )
    if not match["after"].startswith((" ", ",", ".", ";", ":", "!", "?")):
        raise DataError(
            f"{where}: text touches the word, so a tokenizer may join them", "put a space after the word"
        )
    before = match["before"].rstrip()
    space = match["before"][len(before) :]
    return MinimalPair(
        group=group,
        before=before,
        words=(space + match["first"], space + match["second"]),
        after=match["after"],
        role="control" if role else "probe",
    )
