"""Real failed allocations end in one line that names what helps."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SENTENCES, Outcome

from insight.api.fit import explained_memory_errors
from insight.runtime.errors import InsightError

Insight = Callable[..., Outcome]
SETTINGS = ("--data.batch_size", "--trainer.accumulate_grad_batches", "--data.sequence_length")
SETTINGS += ("activation_checkpointing ActivationCheckpointing",)

# Room for the program and a little more, but not for a batch of this size.
SHORT_OF_MEMORY = textwrap.dedent("""
    import resource, sys
    import psutil
    import insight.api.configuration
    from insight.cli.main import main
    room = psutil.Process().memory_info().vms + 1_000_000_000
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    assert main([*sys.argv[1:], "--data.batch_size=4"]) == 0
    sys.exit(main([*sys.argv[1:], "--data.batch_size=20000"]))
""")


def test_a_network_that_no_machine_holds(insight: Insight, workplace: Path) -> None:
    """A matrix larger than an address space is refused at once, whatever the machine."""
    outcome = insight(
        "fit",
        "--config",
        "tiny.yaml",
        "--data.batch_size=3",
        "--model.network.hidden_size=1000000",
        "--model.network.attention.head_dim=16777216",
        "--model.network.feed_forward.intermediate_size=16777216",
    )
    assert outcome.code == 1
    assert "out of memory in training (data.batch_size=3, data.sequence_length=16)" in outcome.error_line
    assert all(setting in outcome.error_line for setting in SETTINGS)
    assert not (workplace / "runs").exists()


@pytest.mark.slow
def test_a_batch_that_does_not_fit(workplace: Path) -> None:
    """In a process with little room; a batch of 4 fits there, so it is the batch."""
    (workplace / "train.txt").write_text(SENTENCES * 2000, encoding="utf-8")
    command = [sys.executable, "-c", SHORT_OF_MEMORY, "fit", "--config", "tiny.yaml", "--run.test=false"]
    command.append("--model.network.hidden_size=128")
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=workplace)
    assert done.returncode == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("insight: error: out of memory in training (data.batch_size=20000")
    assert all(setting in line for setting in SETTINGS)


def test_other_errors_pass() -> None:
    """A block that called every error one of memory would be noticed."""
    with pytest.raises(RuntimeError, match="shapes"), explained_memory_errors(None):
        raise RuntimeError("shapes do not fit")
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")):
        with pytest.raises(InsightError, match="out of memory in training"), explained_memory_errors(None):
            raise error
