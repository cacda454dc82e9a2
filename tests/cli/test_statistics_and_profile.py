"""ModelStatistics and StepProfiler named in a YAML file, on a real decoder, which trains as without them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import Outcome

from insight.reporting import read_metrics

FIT = ("fit", "--config", "tiny.yaml", "--model.network.dropout=0.2", "--trainer.accumulate_grad_batches=2")
CALLBACKS = [
    {"class_path": "SampleText", "init_args": {"prompts": ["It is"], "settings": {"max_new_tokens": 8}}},
    {"class_path": "ModelStatistics", "init_args": {"every_n_steps": 2, "by": "role"}},
    {"class_path": "StepProfiler", "init_args": {"start_step": 1, "num_steps": 2}},
]


@pytest.mark.slow
def test_they_look_and_change_nothing(insight: Callable[..., Outcome], workplace: Path) -> None:
    (workplace / "look.yaml").write_text(
        yaml.safe_dump({"trainer": {"callbacks": CALLBACKS}}), encoding="utf-8"
    )
    assert insight(*FIT).code == 0
    outcome = insight(*FIT, "--config", "look.yaml")
    assert outcome.code == 0, outcome.err
    plain, watched = workplace / "runs/tiny/1", workplace / "runs/tiny/2"
    weights = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (plain, watched)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    records = [record for record in read_metrics(watched) if "gradient/hidden/rms" in record]
    assert [record["step"] for record in records] == [2, 4]
    for record in records:
        for role in ("embedding", "hidden", "head", "vector"):
            assert record[f"gradient/{role}/max"] >= record[f"gradient/{role}/rms"] > 0
        for layer in ("embedding", "blocks.0"):
            assert record[f"activation/{layer}/max"] >= record[f"activation/{layer}/rms"] > 0
        # Few of 256 bytes occur in a batch, so most rows of the table have no gradient.
        assert record["gradient/embedding/zeros"] > 0.5 > record["gradient/hidden/zeros"]

    trace = json.loads(gzip.decompress((watched / "profile" / "trace.json.gz").read_bytes()))
    steps = [event for event in trace["traceEvents"] if str(event.get("name")).startswith("Optimizer.step")]
    assert len([event for event in steps if event.get("ph") == "X"]) == 2
    assert "aten::" in (watched / "profile" / "operations.txt").read_text()
    assert "profile of 2 steps" in outcome.err
