"""The interface of all tokenizers: lossless ids, typed errors, a standard tokenizer.json."""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from insight.data.sources.cuts import cut_stream, cut_text
from insight.runtime.component import Component
from insight.runtime.errors import TokenizerError
from insight.runtime.files import atomic_write_text

END_OF_TEXT = "<|endoftext|>"
"""Name of the token that ends every document."""

TokenIds = Sequence[int] | npt.NDArray[Any]


class EncodedBatch(NamedTuple):
    """The ids of many texts in one flat array.

    Attributes:
        ids: int64 ``(tokens,)``, the texts one after the other.
        offsets: int64 ``(texts + 1,)``; text ``i`` is ``ids[offsets[i]:offsets[i + 1]]``.
    """

    ids: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]


class BaseTokenizer(ABC):
    """Turns text into token ids and back; instances are thread-safe and picklable.

    The name of a special token inside a text is plain text and never becomes the special id, so a document
    cannot forge the end of another.

    Attributes:
        vocabulary_size: Number of ids; every id is below it.
        end_of_text_id: Id of the token that ends a document.
        is_lossless: Whether decoding returns every text exactly. Other tokenizers lose text on purpose: they
            normalize it, or know only some words.
        boundaries: White space before which, after another character, a text may be cut without changing any
            id, as characters of a regular expression; ``None`` if no such place is known.
    """

    vocabulary_size: int
    end_of_text_id: int
    is_lossless: bool = True
    boundaries: str | None = None
    _safe_cut: re.Pattern[str] | None = None

    @property
    @abstractmethod
    def special_tokens(self) -> dict[str, int]:
        """The ids of the tokens that stand for no text, by name."""

    @property
    def unknown_id(self) -> int | None:
        """Id of the token for unknown words; ``None`` if every text can be encoded."""
        return None

    @property
    def encoder(self) -> str:
        """Name of the library that encodes long texts."""
        return type(self).__name__

    @abstractmethod
    def to_json(self) -> str:
        """The content of a standard ``tokenizer.json``, which ``load_tokenizer`` can load."""

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> EncodedBatch:
        """Encode texts that have been checked."""

    @abstractmethod
    def _token_bytes(self) -> list[bytes]:
        """The bytes of each id, ``b""`` for special tokens."""

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without an end-of-text token; ``[]`` for ``""``.

        Raises:
            TokenizerError: ``text`` is not a ``str`` or holds half a surrogate pair.
        """
        utf8_length(text)
        ids: list[int] = self._encode([text]).ids.tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> EncodedBatch:
        """The ids of every text of a list in one flat array, with the errors of :meth:`encode`."""
        if isinstance(texts, (str, bytes)):
            raise TokenizerError("encode_batch needs a list of texts, got one", "use encode, or [text]")
        if not isinstance(texts, Sequence):
            problem = f"encode_batch needs a list of texts, got {type(texts).__name__}"
            raise TokenizerError(problem, "use list(texts)")
        for index, text in enumerate(texts):
            utf8_length(text, f"texts[{index}]")
        return self._encode(texts)

    def encode_pieces(self, pieces: Sequence[str]) -> npt.NDArray[Any]:
        """The ids of consecutive pieces from :meth:`stream_parts`, of any integer type, without checks."""
        return self._encode(pieces).ids

    def text_parts(self, text: str, num_characters: int) -> Iterator[str]:
        """Cut ``text`` into parts whose concatenated ids are those of the whole text.

        Every part but the last has at least ``num_characters``. If no cut is allowed, the text is one part.
        """
        return cut_text(text, num_characters, self._safe_cut) if self._safe_cut else iter((text,))

    def stream_parts(self, chunks: Iterable[str], num_characters: int) -> Iterator[str]:
        """Cut a text given in chunks (cut anywhere) into parts, as :meth:`text_parts` does.

        If this tokenizer allows no cut, the whole text is the only part and must fit into memory.

        Raises:
            TokenizerError: Millions of characters have no place to cut.
        """
        place = self._safe_cut
        return cut_stream(chunks, num_characters, place) if place else iter(("".join(chunks),))

    def decode(self, ids: TokenIds, skip_special_tokens: bool = True) -> str:
        """The text that ``ids`` stand for; bytes that are not UTF-8 become ``U+FFFD``.

        Args:
            ids: A list or a one-dimensional integer array.
            skip_special_tokens: Leave special tokens out instead of writing their names.

        Raises:
            TokenizerError: ``ids`` are not integers or not below ``vocabulary_size``.
        """
        return self.decode_bytes(ids, skip_special_tokens).decode("utf-8", errors="replace")

    def decode_batch(self, batch: Iterable[TokenIds], skip_special_tokens: bool = True) -> list[str]:
        """Decode each item as :meth:`decode` does, with its errors."""
        if not isinstance(batch, Iterable):
            problem = f"decode_batch needs a list of lists of ids, got {type(batch).__name__}"
            raise TokenizerError(problem, "use decode")
        return [self.decode(ids, skip_special_tokens) for ids in batch]

    def decode_bytes(self, ids: TokenIds, skip_special_tokens: bool = True) -> bytes:
        """The exact bytes that ``ids`` stand for, which may end inside a character; see :meth:`decode`."""
        pieces = self._pieces if skip_special_tokens else self._named_pieces
        return b"".join([pieces[index] for index in self._checked(ids)])

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for, ``b""`` for a special token; errors as :meth:`decode`."""
        return self._pieces[self._checked([token_id])[0]]

    def token_byte_lengths(self) -> npt.NDArray[np.int64]:
        """The number of bytes of each id, int64 ``(vocabulary_size,)``; 0 for special tokens.

        Their sum over the ids of a text is its UTF-8 length, so bits per byte compare across tokenizers.
        """
        return np.array([len(piece) for piece in self._pieces], dtype=np.int64)

    def fingerprint(self) -> str:
        """A hash of everything that decides the ids of a text (xxh3, 128 bits, hexadecimal)."""
        return self._fingerprint

    def save(self, path: str | Path) -> None:
        """Write ``tokenizer.json`` to ``path``, which is the file or its folder.

        Raises:
            OutputError: The file cannot be written.
            TokenizerError: ``path`` names no file.
        """
        if not isinstance(path, (str, Path)) or not str(path):
            raise TokenizerError("names no file", "give a file or a folder", option="path", value=path)
        path = Path(path)
        atomic_write_text(path / "tokenizer.json" if path.is_dir() else path, self.to_json())

    @functools.cached_property
    def _pieces(self) -> list[bytes]:
        return self._token_bytes()

    @functools.cached_property
    def _named_pieces(self) -> list[bytes]:
        pieces = list(self._pieces)
        for name, index in self.special_tokens.items():
            pieces[index] = name.encode("utf-8")
        return pieces

    @functools.cached_property
    def _fingerprint(self) -> str:
        # The garbage collector would search the many lists of merges in vain, a third of the time.
        is_enabled = gc.isenabled()
        gc.disable()
        try:
            canonical = json.dumps(json.loads(self.to_json()), sort_keys=True)
        finally:
            if is_enabled:
                gc.enable()
        return str(xxhash.xxh3_128_hexdigest(canonical.encode("utf-8")))

    def _checked(self, ids: TokenIds) -> list[int]:
        array = np.asarray(ids)
        if array.size == 0:
            return []
        if array.ndim != 1 or array.dtype.kind not in "iu":
            problem = f"ids must be a list of integers, got {array.dtype.name} of shape {array.shape}"
            raise TokenizerError(problem, "decode one sequence at a time, or use decode_batch")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.vocabulary_size:
            problem = f"id {low if low < 0 else high} is outside 0..{self.vocabulary_size - 1}"
            raise TokenizerError(problem, "were the ids made by another tokenizer?")
        checked: list[int] = array.tolist()
        return checked


@dataclass(frozen=True)
class TokenizerConfig(Component):
    """Base of the tokenizer configurations.

    Attributes:
        learns_from_text: Whether :meth:`build` reads the texts, in which case its result is cached.
    """

    learns_from_text: ClassVar[bool] = False

    @abstractmethod
    def build(self, texts: Iterable[str]) -> BaseTokenizer:
        """Make the tokenizer; it is trained on ``texts`` if its kind learns from text.

        Raises:
            TokenizerError: It cannot be built from these texts.
        """


# This function caches the UTF-8 form in the string, so that an encoder need not compute it again.
_keep_utf8 = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyUnicode_AsUTF8AndSize", ctypes.pythonapi)
)


def utf8_length(text: str, name: str = "text") -> int:
    """Length of ``text`` in UTF-8 bytes; a TokenizerError if it is no ``str`` or no valid Unicode."""
    if not isinstance(text, str):
        raise TokenizerError(f"{name} must be str, got {type(text).__name__}", "decode bytes as UTF-8 first")
    if text.isascii():
        return len(text)
    try:
        size = ctypes.c_ssize_t()
        _keep_utf8(text, ctypes.byref(size))
        return size.value
    except UnicodeEncodeError as error:
        problem = f"{name} has half a surrogate pair at character {error.start}"
        remedy = "remove it, e.g. text.encode('utf-8', 'replace').decode('utf-8')"
        raise TokenizerError(problem, remedy) from error
