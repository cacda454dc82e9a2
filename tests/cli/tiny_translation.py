"""A tiny translation model, trained in seconds: numbers in words, from an invented language into another."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from command_line import run_insight

WORDS = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro", "five": "cinco", "six": "seis"}
CONFIG = """\
seed: 3
run: {name: numbers, num_threads: 1, test: false}
data:
  class_path: TranslationDataModule
  init_args:
    train_files: FOLDER/pairs.tsv
    source_field: en
    target_field: es
    tokenizer: {class_path: BPETokenizerConfig, init_args: {vocabulary_size: 290}}
    directions: DIRECTIONS
    max_source_length: 24
    max_target_length: 24
    batch_tokens: 2000
model:
  class_path: TranslationModule
  init_args:
    network:
      share_embeddings: true
      encoder: &stack
        hidden_size: 32
        num_layers: 1
        max_sequence_length: 24
        attention: {class_path: GroupedQueryAttention, init_args: {num_heads: 2}}
      decoder: {<<: *stack, tie_embeddings: true}
      cross_attention:
        class_path: GroupedQueryAttention
        init_args: {num_heads: 2, position: {class_path: NoPosition}}
    optimizer: {class_path: MuonAdamW, init_args: {learning_rate: 0.02, adam_learning_rate: 0.01}}
trainer: {max_steps: STEPS, precision: 32-true, enable_progress_bar: false}
"""


def train_numbers(folder: Path, steps: int = 150, directions: str = "forward", *options: str) -> Path:
    """Train the model in ``folder``, with more options of ``insight fit``; returns its run."""
    chosen = [words for length in (1, 2, 3) for words in itertools.product(WORDS, repeat=length)]
    rows = [f"{' '.join(words)}\t{' '.join(WORDS[word] for word in words)}" for words in chosen]
    (folder / "pairs.tsv").write_text("en\tes\n" + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    text = CONFIG.replace("DIRECTIONS", directions).replace("STEPS", str(steps))
    text = text.replace("FOLDER", str(folder))
    (folder / "numbers.yaml").write_text(text, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        outcome = run_insight("fit", "--config", "numbers.yaml", *options)
    finally:
        os.chdir(before)
    assert outcome.code == 0, outcome.err
    return folder / "runs" / "numbers" / "1"
