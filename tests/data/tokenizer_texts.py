"""Texts on which tokenizers tend to differ: many languages, emoji, code, random bytes."""

from __future__ import annotations

import random

from insight.data import read_corpus


def _random_bytes(seed: int, count: int) -> str:
    """Random bytes as text: what is no UTF-8 becomes U+FFFD, as a reader that replaces would have it."""
    return random.Random(seed).randbytes(count).decode("utf-8", errors="replace")


LANGUAGES = (
    "It's a truth universally acknowledged; SHE'LL say so, I've 3.14 reasons.",
    "Größe, naïve Façade – „Zitat“, Ærøskøbing, İstanbul'da, Łódź, žluťoučký kůň",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Πᾶσα ἀρχή.",
    "日本語の文章。中文，没有空格！한국어 문장입니다.",
    "זהו משפט בעברית, והנה עוד אחד. هذه جملة بالعربية، والثانية.",
    "यह हिन्दी का वाक्य है। นี่คือประโยคภาษาไทย ១២៣",
    "e\u0301 \u00e9 A\u030a \u1e9b\u0323 \ufb01 \u2126",
)
EMOJI = ("👩‍👩‍👧‍👦🏳️‍🌈 🇫🇷🇯🇵 👍🏽 \U0001f9ff☎️ text 😀😀", "a\u200bb\u200d\ufe0f \u2764\ufe0f")
CODE = (
    'def f(x: int) -> str:\n\treturn f"{x!r:>10}"  # it\'s 0x7F\r\n'
    '\n\nif __name__ == "__main__":\n    f(1_000)\n',
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 3.0f; }  // done\n#include <vector>\n",
    '{"key": [1, 2, {"a": null}], "b": "\\u00e9\\n"}\n<p class="x">&amp;</p>\n',
)
SPACES = ("", " ", "  ", "\n\n \t x  y\u3000z\x85\u2003\u00a0w\x1c", "a\x00b\x01\x7f\ufeffc", "tail   ")
HARD_TEXTS = (
    *LANGUAGES,
    *EMOJI,
    *CODE,
    *SPACES,
    "a<|endoftext|>b </s> <s><|user|>",
    *(_random_bytes(seed, 400) for seed in range(5)),
    "".join((*LANGUAGES, *EMOJI, *CODE, *SPACES)),
)
TRAINING_TEXT = read_corpus("austen-persuasion")[:60_000] + "\n".join((*LANGUAGES, *EMOJI, *CODE)) * 8
