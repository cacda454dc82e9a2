"""Windows of training text: where they come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import TEXT, store_of

from insight.data.tokenizers import ByteTokenizer
from insight.optimization import Calibration
from insight.runtime.errors import ConfigError, DataError


def test_windows_are_spread_over_the_text(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    store = store_of(TEXT * 10, tmp_path / "store", tokenizer)
    found = Calibration.from_store(store, 10, num_windows=5)
    assert found.windows.shape == (5, 10)
    assert found.windows[0].tolist() == store.tokens(0, 10).tolist()
    last = (store.num_tokens // 10 - 1) * 10
    assert found.windows[-1].tolist() == store.tokens(last, last + 10).tolist()
    found.require_tokenizer(tokenizer.fingerprint())


def test_short_text_gives_fewer_windows(tmp_path: Path) -> None:
    store = store_of(TEXT[:25], tmp_path / "store", ByteTokenizer())
    assert Calibration.from_store(store, 10).windows.shape == (2, 10)
    with pytest.raises(DataError, match="fewer than one window of 100"):
        Calibration.from_store(store, 100)


def test_what_cannot_be_windows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"shape \(3,\)"):
        Calibration(np.zeros(3, dtype=np.int64), "x")
    store = store_of(TEXT, tmp_path / "store", ByteTokenizer())
    with pytest.raises(ConfigError) as error:
        Calibration.from_store(store, 10, num_windows=0)
    assert (error.value.option, error.value.value) == ("num_windows", 0)
