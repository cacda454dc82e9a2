"""The training and unseen texts of a model and its planted secrets, read from the data of its run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from insight.runtime.errors import DataError

SECRET = "{secret}"


@dataclass(frozen=True)
class PlantedSecret:
    """One canary: a sentence of the training text up to its secret, and its rest with ``{secret}``.

    The secret is made of digits; every number with as many digits could have been planted. In parallel text
    the sentence is the translation of ``source``.
    """

    prompt: str
    continuation: str
    secret: str
    source: str = ""

    def candidates(self) -> tuple[str, ...]:
        """All possible texts after the prompt up to the end of the secret, in numeric order.

        The text after the secret is left out: it is equal for all, and without it the computation of
        shared leading digits is shared.
        """
        digits, before = len(self.secret), self.continuation.partition(SECRET)[0]
        return tuple(f"{before}{number:0{digits}d}" for number in range(10**digits))


@dataclass(frozen=True)
class Material:
    """Documents that a model was trained on, others of the same kind (the controls), and planted canaries.

    Of a model that translates, pairs of source and target take the place of documents. What is not known is
    empty.
    """

    training_texts: tuple[str, ...] = ()
    unseen_texts: tuple[str, ...] = ()
    secrets: tuple[PlantedSecret, ...] = ()
    training_pairs: tuple[tuple[str, str], ...] = ()
    unseen_pairs: tuple[tuple[str, str], ...] = ()


def secrets_of(record: Mapping[str, Any] | None) -> tuple[PlantedSecret, ...]:
    """The canaries in a run's record of them (``data.canaries`` of its summary); empty without a record."""
    planted = (record or {}).get("planted") or ()
    keys = ("prompt", "continuation", "secret", "source")  # checkpoints of old have no source
    return tuple(PlantedSecret(*(entry.get(key, "") for key in keys)) for entry in planted)


# At most this many stretches of this many tokens each, or pairs, are read: enough text for any suite.
_NUM_STRETCHES = 256
_STRETCH_TOKENS = 1024
_NUM_PAIRS = 2048


def material_of(data: Any) -> Material:
    """Read the texts and canaries from a data module that is set up for fitting.

    Training text is decoded from the token store, so it excludes text set aside for validation. Unseen
    text comes from the test split, or from the validation split if there is no test split.
    """
    canaries = getattr(data, "canaries", None)
    secrets = secrets_of(canaries.record() if canaries else None)
    if not hasattr(data, "pair_stores"):
        unseen = _texts(data, "test") or _texts(data, "validation")
        return Material(_texts(data, "train"), unseen, secrets)
    planted = {secret.source for secret in secrets}
    trained = tuple(pair for pair in _pairs(data, "train") if pair[0] not in planted)
    unseen_pairs = _pairs(data, "test") or _pairs(data, "validation")
    return Material(secrets=secrets, training_pairs=trained, unseen_pairs=unseen_pairs)


def _pairs(data: Any, split: str) -> tuple[tuple[str, str], ...]:
    """Pairs spread evenly over a split, as the model reads and writes them; empty if the split is missing."""
    try:
        stores = data.pair_stores(split)
    except DataError:
        return ()
    # A model of both directions trains on each pair twice; the second time the sides are exchanged.
    step = 2 if data.directions == "both" and split == "train" else 1
    rows = range(0, stores.target.num_documents, step)
    rows = rows[:: max(1, len(rows) // _NUM_PAIRS)]
    # Tokenizers leave out the tag of a direction, which is special.
    targets, sources = (
        [tokenizer.decode(store.document(row)) for row in rows]
        for tokenizer, store in zip(data.tokenizers, (stores.target, stores.source), strict=True)
    )
    return tuple(zip(sources, targets, strict=True))


def _texts(data: Any, split: str) -> tuple[str, ...]:
    """Documents, or parts of documents, spread evenly over a split; empty if the split is missing."""
    try:
        store = data.store(split)
    except DataError:
        return ()
    step = max(_STRETCH_TOKENS, store.num_tokens // _NUM_STRETCHES)
    if step == _STRETCH_TOKENS:  # little text: all of it, in one piece
        stretches = [store.tokens(0, store.num_tokens)]
    else:
        starts = range(0, store.num_tokens - _STRETCH_TOKENS + 1, step)
        stretches = [store.tokens(start, start + _STRETCH_TOKENS) for start in starts]
    texts = []
    for tokens in stretches:
        ends = [-1, *np.flatnonzero(tokens == store.end_of_text_id).tolist(), len(tokens)]
        documents = [tokens[before + 1 : end].tolist() for before, end in itertools.pairwise(ends)]
        # A stretch may begin or end inside a character.
        texts += [data.tokenizer.decode(document).strip("\ufffd") for document in documents]
    return tuple(filter(None, texts))


def lines_of(path: Path) -> list[tuple[str, str]]:
    """The lines of a text file that are neither blank nor comments, each with the place where it stands.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", "give a text file in UTF-8") from error
    numbered = ((line, f"{path}, line {number}") for number, line in enumerate(lines, start=1))
    return [(line, where) for line, where in numbered if line.strip() and not line.strip().startswith("#")]
