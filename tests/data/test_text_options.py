"""The options of the data module on what is no text, and on how much the cache may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from insight.data import ByteTokenizerConfig, LanguageModelingDataModule
from insight.data.store import StoreInventory
from insight.runtime.errors import ConfigError, DataError


def data_module(folder: Path, name: str, **options: Any) -> LanguageModelingDataModule:
    return LanguageModelingDataModule(
        str(folder / name),
        tokenizer=ByteTokenizerConfig(),
        sequence_length=16,
        batch_size=2,
        validation_fraction=0.0,
        cache_dir=str(folder / "cache"),
        **options,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait, encore " * 20)
    for name in ("b", "c", "d"):
        (tmp_path / f"{name}.txt").write_text(f"the text of {name} " * 5000)
    return tmp_path


def test_invalid_text(folder: Path) -> None:
    with pytest.raises(DataError, match=r"byte 3 \(0xe9\) is not UTF-8.*invalid_text"):
        data_module(folder, "a.txt").setup("fit")
    data = data_module(folder, "a.txt", invalid_text="skip")
    data.setup("fit")
    assert data.tokenizer.decode(data.store("train").tokens(0, 12)) == "caf au lait,"
    with pytest.raises(ConfigError, match="did you mean 'skip'"):
        data_module(folder, "a.txt", invalid_text="sikp")


def test_cache_gigabytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSIGHT_CACHE_GIGABYTES", raising=False)
    kept = []
    for name in ("b.txt", "c.txt", "d.txt"):
        data_module(folder, name, cache_gigabytes=0.0003).setup("fit")
        kept.append(len(StoreInventory(folder / "cache").entries()))
    assert kept == [1, 2, 2]
    monkeypatch.setenv("INSIGHT_CACHE_GIGABYTES", "0")
    data = data_module(folder, "b.txt")
    data.setup("fit")
    assert [entry.path for entry in StoreInventory(folder / "cache").entries()] == [data.store("train").path]
    with pytest.raises(ConfigError) as caught:
        data_module(folder, "b.txt", cache_gigabytes=-1.0)
    assert (caught.value.option, caught.value.value) == ("cache_gigabytes", -1.0)
