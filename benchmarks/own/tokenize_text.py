"""The text that ``tokenize`` measures on, and a tokenizer for it, in the forms that all contenders read.

Prose is the paragraphs of the embedded novels in random order, repeated. Code is the Python files of this
environment. Compared with a web crawl, prose repeats its words more, and code has longer words.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from insight.data import BPETokenizerConfig, list_corpora, load_tokenizer, read_corpus
from insight.data.tokenizers.tokenizer_json import GPT2_PATTERN

TEXTS = ("prose", "code")
_VOCABULARY = 32_000
_DOCUMENT_CHARACTERS = 20_000
_TRAINING_BYTES = 8_000_000
_END = "<|endoftext|>"


def write_texts(folder: Path, num_bytes: int, slice_bytes: int, workers_bytes: int) -> None:
    """Write the files that are missing.

    They are, for each text, ``NAME.txt`` of ``num_bytes``, its first ``workers_bytes`` as ``NAME.part.txt``
    and its first ``slice_bytes`` as ``NAME.jsonl`` and as ``NAME/*.txt``; and ``tokenizer/`` with
    ``tokenizer.json``, ``tokenizer_config.json`` for litgpt and ``ranks.json`` for tiktoken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in (("prose", _prose()), ("code", _code())):
        _write_text(folder, name, documents, num_bytes, slice_bytes)
        part = folder / f"{name}.part.txt"
        if not part.exists():
            with open(folder / f"{name}.txt", "rb") as file:
                part.write_bytes(file.read(workers_bytes).rpartition(b"\n")[0])
    _write_tokenizer(folder)


def _write_text(folder: Path, name: str, documents: Iterator[str], num_bytes: int, slice_bytes: int) -> None:
    done = folder / f"{name}.txt"
    if done.exists():
        return
    parts = folder / name
    parts.mkdir(exist_ok=True)
    written = number = 0
    unfinished = done.with_suffix(".unfinished")
    with (
        open(unfinished, "w", encoding="utf-8", newline="") as whole,
        open(folder / f"{name}.jsonl", "w", encoding="utf-8") as lines,
    ):
        for document in documents:
            if written < slice_bytes:
                lines.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
                (parts / f"{number:05d}.txt").write_text(document, encoding="utf-8", newline="")
                number += 1
            whole.write(document + "\n\n")
            written += len(document.encode("utf-8")) + 2
            if written >= num_bytes:
                break
    unfinished.rename(done)


def _prose() -> Iterator[str]:
    paragraphs = [
        paragraph
        for name in list_corpora()
        if name.startswith("austen-")
        for paragraph in read_corpus(name).split("\n\n")
        if paragraph
    ]
    source = random.Random(0)
    while True:
        source.shuffle(paragraphs)
        document: list[str] = []
        size = 0
        for paragraph in paragraphs:
            document.append(paragraph)
            size += len(paragraph)
            if size >= _DOCUMENT_CHARACTERS:
                yield "\n\n".join(document)
                document, size = [], 0


def _code() -> Iterator[str]:
    folders = [Path(sysconfig.get_path(name)) for name in ("purelib", "stdlib")]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    # Files are shuffled, since neighbours are similar and a slice should be a sample of all.
    random.Random(0).shuffle(files)
    # A text that is too short is repeated.
    for file in itertools.cycle(files):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        # Contenders treat the names of special tokens and white space at the ends differently.
        text = text.strip()
        if text and _END not in text:
            yield text


def _write_tokenizer(folder: Path) -> None:
    target = folder / "tokenizer"
    if (target / "ranks.json").exists():
        return
    target.mkdir(exist_ok=True)
    tokenizer = BPETokenizerConfig(_VOCABULARY).build(_training_texts(folder))
    tokenizer.save(target / "tokenizer.json")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": _END, "eos_token": _END}
    (target / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    loaded = load_tokenizer(target)
    special = loaded.special_tokens
    ranks = {
        base64.b64encode(loaded.token_bytes(index)).decode("ascii"): index
        for index in range(loaded.vocabulary_size)
        if index not in special.values()
    }
    content = {"pattern": GPT2_PATTERN, "ranks": ranks, "special": special}
    (target / "ranks.json").write_text(json.dumps(content), encoding="utf-8")


def _training_texts(folder: Path) -> Iterable[str]:
    for name in TEXTS:
        size = 0
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            text = json.loads(line)["text"]
            yield text
            size += len(text)
            if size > _TRAINING_BYTES:
                break
