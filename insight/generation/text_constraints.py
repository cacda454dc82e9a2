"""Texts that hypotheses begin with, must contain or must not contain, in the tokens of a tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from insight.data.tokenizers import BaseTokenizer
from insight.generation.constraints import ForbiddenTexts, Required, Sentence, TokenIds
from insight.runtime.errors import ConfigError

_WITHOUT_SPACES = {"CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
_LONGEST_CHARACTER = 4


class RequiredText(Required):
    """A text that every hypothesis contains; one that begins with a letter or digit begins a word there.

    It may be divided into tokens in any way. The search leads to the tokens that the tokenizer makes of it
    alone, and behind a space.

    Args:
        text: The text, which is not empty.
        tokenizer: The tokenizer.
        before: Text that stands before every hypothesis.
    """

    def __init__(self, text: str, tokenizer: BaseTokenizer, before: str = "") -> None:
        self._text, self._before, self._token_bytes = text, before[-1:].encode(), tokenizer.token_bytes
        alone = tuple(tokenizer.encode(text))
        behind_space = tuple(tokenizer.encode(f" {text}"))
        spellings = [alone]
        # Some tokenizers put a space before every text by themselves.
        if not text[0].isspace() and self._bytes(behind_space) == f" {text}".encode():
            spellings.append(behind_space)
        super().__init__(*spellings)

    def is_in(self, history: TokenIds) -> bool:
        data, text = self._before + self._bytes(history), self._text.encode()
        place = data.find(text, len(self._before))
        while place >= 0:
            if _may_stand(data[:place], self._text):
                return True
            place = data.find(text, place + 1)
        return False

    def may_begin(self, history: TokenIds, spelling: TokenIds) -> bool:
        before, text = self._before + self._bytes(history), self._bytes(spelling).decode("utf-8", "replace")
        return _may_stand(before, text) and not (text[0].isspace() and before[-1:].isspace())

    def _bytes(self, token_ids: TokenIds) -> bytes:
        return b"".join(map(self._token_bytes, token_ids))


def _may_stand(before: bytes, text: str) -> bool:
    """Whether a text behind others begins a word, if it begins with a letter or digit at all."""
    last = before[-_LONGEST_CHARACTER:].decode("utf-8", "ignore")[-1:]
    return not (last and _joins(last) and _joins(text[0]))


def _joins(character: str) -> bool:
    """Whether a character is a part of a word, in a script that puts spaces between words."""
    script = unicodedata.name(character, "").partition(" ")[0]
    return unicodedata.category(character)[0] in "LMN" and script not in _WITHOUT_SPACES


class TextConstraints:
    """Makes the constraints of sentences from texts.

    Args:
        tokenizer: The tokenizer of the hypotheses.
        must_not_contain: Texts that no hypothesis contains.
        too_long: The remedy where a text does not fit.
    """

    def __init__(self, tokenizer: BaseTokenizer, must_not_contain: Sequence[str], too_long: str) -> None:
        self._tokenizer, self._must_not_contain, self._too_long = tokenizer, must_not_contain, too_long
        self._forbidden = None
        if must_not_contain:
            pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocabulary_size)]
            self._forbidden = ForbiddenTexts(must_not_contain, pieces)

    def sentence(
        self,
        max_length: int,
        prefix: str = "",
        must_contain: Sequence[str] = (),
        *,
        before: str = "",
        context: TokenIds = (),
        seed: int = 0,
    ) -> Sentence:
        """The limits and constraints of a sentence.

        Args:
            max_length: Most tokens of a hypothesis.
            prefix: Text that every hypothesis begins with.
            must_contain: Texts that every hypothesis contains; see :class:`RequiredText`.
            before: Text that stands before every hypothesis.
            context: The tokens of that text.
            seed: Seed of samples.

        Raises:
            ConfigError: One constraint forbids what another asks for, or a text does not fit.
        """
        require_texts("must_contain", must_contain)
        for option, texts in (("prefix", (prefix,)), ("must_contain", must_contain)):
            for text in texts:
                for other in self._must_not_contain:
                    if other in text:
                        problem = f"must_not_contain={other!r} forbids it"
                        raise ConfigError(problem, "leave one of them out", option=option, value=text)
        prefix_ids = tuple(self._tokenizer.encode(prefix)) if prefix else ()
        if len(prefix_ids) >= max_length:
            self._refuse("prefix", prefix, len(prefix_ids), max_length)
        required = tuple(RequiredText(text, self._tokenizer, before) for text in must_contain)
        for text, one in zip(must_contain, required, strict=True):
            shortest = min(map(len, one.spellings))
            if shortest > max_length:
                self._refuse("must_contain", text, shortest, max_length)
        return Sentence(
            max_length, prefix_ids, required, forbidden_texts=self._forbidden, seed=seed, context=context
        )

    def _refuse(self, option: str, text: str, size: int, longest: int) -> None:
        problem = f"it has {size} tokens, and the text ends after {longest}"
        raise ConfigError(problem, self._too_long, option=option, value=text)


def require_texts(option: str, texts: Sequence[str]) -> None:
    """Refuse anything but a sequence of texts that are not empty."""
    if isinstance(texts, str) or not all(isinstance(text, str) and text for text in texts):
        raise ConfigError("must be texts that are not empty", "leave it out", option=option, value=texts)
