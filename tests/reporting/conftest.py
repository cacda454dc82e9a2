"""A run folder with everything a finished run leaves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from insight.reporting import Metric, Sample, append_sample, update_run_info, update_summary
from insight.runtime.hardware import Hardware
from insight.runtime.json_files import append_record
from insight.runtime.run_folder import RunFolder


@pytest.fixture
def finished_run(tmp_path: Path) -> RunFolder:
    """The shape of a real run: 100 training records, 5 validations, 3 samples, all other files."""
    run = RunFolder.create(tmp_path / "runs", "demo")
    for step in range(100):
        record = {"step": step, "seconds": step * 0.5, "train/loss": 3 + 4 * math.exp(-step / 20)}
        record |= {"train/learning_rate": 0.01, "train/gradient_norm": 0.5, "memory/resident_bytes": 1e9}
        record |= {"throughput/tokens_per_second": 9000.0 + step, "throughput/matmul_share": 0.25}
        append_record(run.metrics_path, record)
        if step % 20 == 19:
            bits = {"validation/loss": 3.2, "validation/bits_per_byte": 2.0 - step / 200}
            append_record(run.metrics_path, {"step": step, "seconds": step * 0.5, **bits})
    for step, text in ((19, "xx th e"), (59, "the of was"), (99, "a universally acknowledged fact.")):
        append_sample(run.samples_path, Sample(step, "It is", text))
    metrics = {"test/bits_per_byte": Metric(1.5623, (1.551, 1.574), 440_512, "bits per byte")}
    update_summary(run.summary_path, metrics)
    update_run_info(
        run.info_path,
        command=["insight", "fit", "--config", "my config.yaml"],
        started="2026-11-25T04:31:00+00:00",
        stop_reason="the time budget was used up",
        insight_version="0.1.0",
        torch_version="2.13.0",
        hardware=Hardware(2, 16_000_000_000, "AVX2", "cpu", "A processor", True, {"float32": 1e11}),
        data={
            "sequence_length": 256,
            "splits": {"train": {"files": ["a.txt"], "bytes": 3000, "tokens": 1000}},
        },
        parameters=4_261_120,
        network={
            "class_path": "insight.models.DecoderConfig",
            "init_args": {
                "num_layers": 4,
                "attention": {
                    "class_path": "insight.models.GroupedQueryAttention",
                    "init_args": {"num_heads": 3},
                },
            },
        },
        precision="32-true",
        num_threads=2,
        notes=("resumed at step 40",),
    )
    run.config_path.write_text("seed: 0\nmodel:\n  network:\n    num_layers: 4\n")
    return run
