"""Shared code of all measured encodings. Needs only Python."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def use_cores(number: int) -> None:
    """Keep this process, its threads and children on ``number`` cores; call it before importing libraries."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[:number])
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(number)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if number > 1 else "false"


def parse_arguments(description: str) -> argparse.Namespace:
    """Options of one peer, as ``tokenize`` passes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--text", type=Path, required=True, help="documents: .jsonl, or a folder of .txt")
    parser.add_argument("--tokenizer", type=Path, required=True, help="its folder")
    parser.add_argument("--output", type=Path, required=True, help="an empty folder")
    return parser.parse_args()
