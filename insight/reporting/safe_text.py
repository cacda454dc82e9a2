"""Text from a network, a file or a command line, made harmless to look at."""

from __future__ import annotations

import re

# Control characters get their picture (␛ for escape), so that what was there stays visible.
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_PICTURES[0x7F] = "\u2421"
# C1 controls, line separators, direction overrides (they reorder what a reader sees) and lone surrogates
# (UTF-8 cannot hold them).
_HARMFUL = re.compile("[\x80-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def safe_text(text: str, max_characters: int) -> str:
    """``text`` without anything that acts on a terminal or a page, at most ``max_characters`` long.

    HTML is not escaped here: the template does that for everything.

    Args:
        text: Anything.
        max_characters: What exceeds it is replaced by a note that says how much is missing.
    """
    missing = len(text) - max_characters
    if missing > 0:
        text = text[:max_characters]
    text = text.replace("\r\n", "\n")
    text = _HARMFUL.sub("\ufffd", text.translate(_PICTURES))
    return f"{text} … [{missing:,} more characters]" if missing > 0 else text
