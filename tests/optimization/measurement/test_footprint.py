"""Bytes are counted once, and a fresh process says what loading takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from insight.models import DecoderConfig, GroupedQueryAttention
from insight.optimization.measurement import disk_bytes, measure_footprint, weight_bytes
from insight.runtime.errors import ConfigError, InsightError

ATTENTION = GroupedQueryAttention(num_heads=2, num_key_value_heads=1)


@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_counted_once(tied: bool) -> None:
    network = DecoderConfig(hidden_size=16, num_layers=1, attention=ATTENTION, tie_embeddings=tied).build(50)
    assert weight_bytes(network) == 4 * network.num_parameters()
    assert weight_bytes(network.bfloat16()) == 2 * network.num_parameters()


def test_parts_of_a_quantized_tensor_count() -> None:
    """Integers, scales and zero points, however deep they lie."""
    integers, scales, zeros = torch.zeros(8, 4, dtype=torch.int8), torch.ones(8), torch.ones(8)
    module = SimpleNamespace(state_dict=lambda: {"packed": ((integers, scales), zeros), "name": "x"})
    assert weight_bytes(module) == 8 * 4 + 2 * 8 * 4  # type: ignore[arg-type]


def test_disk_bytes_of_a_folder_and_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "inner" / "b").write_bytes(b"x" * 5)
    assert disk_bytes(tmp_path) == 15
    assert disk_bytes(tmp_path / "a") == 10


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(InsightError, match=r"broken.ckpt.*is not a checkpoint"):
        measure_footprint({"A": tmp_path / "broken.ckpt"}, num_processes=1)


def test_no_process_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        measure_footprint({"A": tmp_path}, num_processes=0)
    assert (error.value.option, error.value.value) == ("num_processes", 0)
