"""Token ids on disk, made once with Insight's tokenizer for all contenders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from insight.data import BaseTokenizer, BPETokenizerConfig, load_tokenizer, read_corpus

NOVELS = ("austen-sensesensibility", "austen-prideprejudice", "austen-mansfieldpark", "austen-emma")


def write_throughput_text(folder: Path, vocabulary_size: int) -> None:
    """Write ``tokens.npy`` and ``tokenizer.json``, the four novels and their BPE, unless they exist."""
    tokens, tokenizer_file = folder / "tokens.npy", folder / "tokenizer.json"
    if tokens.exists() and tokenizer_file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    texts = [read_corpus(name) for name in NOVELS]
    tokenizer = BPETokenizerConfig(vocabulary_size=vocabulary_size).build(texts)
    tokenizer_file.write_text(tokenizer.to_json(), encoding="utf-8")
    np.save(tokens, _stream(tokenizer, texts))


def write_quality_text(run_folder: Path, folder: Path) -> dict[str, Any]:
    """Write ``train.npy`` and ``validation.npy`` as a run of Insight read them, and ``text.json``.

    Args:
        run_folder: A finished run, which gives the tokenizer and the corpora.
        folder: Folder for the files.

    Returns:
        The content of ``text.json``: bytes and tokens of the validation text, sequence length, batch size.

    Raises:
        SystemExit: The run used other text than the embedded corpora.
    """
    config = yaml.safe_load((run_folder / "config.yaml").read_text(encoding="utf-8"))
    data = config["data"].get("init_args", config["data"])
    tokenizer = load_tokenizer(run_folder / "tokenizer.json")
    folder.mkdir(parents=True, exist_ok=True)
    splits = {split: _corpora(data[f"{split}_files"]) for split in ("train", "validation")}
    for split, texts in splits.items():
        np.save(folder / f"{split}.npy", _stream(tokenizer, texts))
    facts = {
        "validation_bytes": sum(len(text.encode("utf-8")) for text in splits["validation"]),
        "validation_tokens": len(np.load(folder / "validation.npy")),
        "train_tokens": len(np.load(folder / "train.npy")),
        "vocabulary_size": tokenizer.vocabulary_size,
        "sequence_length": data["sequence_length"],
        "batch_size": data["batch_size"],
    }
    (folder / "text.json").write_text(json.dumps(facts), encoding="utf-8")
    return facts


def _corpora(files: str | list[str]) -> list[str]:
    names = [files] if isinstance(files, str) else files
    others = [name for name in names if not name.startswith("corpus:")]
    if others:
        raise SystemExit(f"the peers read the embedded corpora only, and the configuration names {others}")
    return [read_corpus(name.removeprefix("corpus:")) for name in names]


def _stream(tokenizer: BaseTokenizer, texts: list[str]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """End-of-text, document, end-of-text, document, …, end-of-text."""
    ids = [tokenizer.end_of_text_id]
    for text in texts:
        ids += [*tokenizer.encode(text), tokenizer.end_of_text_id]
    return np.asarray(ids, dtype=np.uint32)
