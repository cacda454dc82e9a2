"""The 256 printable characters that stand for the 256 bytes inside a byte-level tokenizer.json."""

from __future__ import annotations


def _alphabet() -> list[str]:
    """Character of each byte (Radford et al. 2019, GPT-2): itself where printable, else U+0100 onwards."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value) if value in printable else chr(next(others)) for value in range(256)]


BYTE_CHARACTERS: tuple[str, ...] = tuple(_alphabet())
"""``BYTE_CHARACTERS[value]`` is the character that a tokenizer.json writes for that byte."""

_BYTE_OF = {character: value for value, character in enumerate(BYTE_CHARACTERS)}


def bytes_of_token(token: str) -> bytes:
    """The bytes that the token's text in a byte-level vocabulary stands for.

    A token with a character outside the alphabet was added as plain text and stands for its own UTF-8.
    """
    try:
        return bytes([_BYTE_OF[character] for character in token])
    except KeyError:
        return token.encode("utf-8")
