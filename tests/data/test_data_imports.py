"""Commands that need no torch can use text, tokenizers and the store without loading it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import insight.data

HEAVY = ("torch", "lightning", "pyarrow", "zstandard", "transformers")


@pytest.mark.parametrize(
    "statement",
    [
        "import insight.data",
        "from insight.data import BPETokenizerConfig, load_tokenizer, BaseTokenizer, ByteTokenizer",
        "from insight.data import TokenStore, Preparation, TextFiles, expand_sources, read_corpus",
        "import insight.data.store, insight.data.sampling, insight.data.corpora",
        "from insight.data import ByteTokenizerConfig; ByteTokenizerConfig().build(()).encode('text')",
    ],
)
def test_imports_stay_light(statement: str) -> None:
    check = f"{statement}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_planted_fault_is_seen() -> None:
    check = f"import insight.data.loaders, sys; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "torch" in result.stdout


def test_every_export_is_there() -> None:
    for name in insight.data.__all__:
        assert getattr(insight.data, name) is not None
    with pytest.raises(AttributeError):
        insight.data.Nothing  # noqa: B018
