"""A process that hangs ends the run, with a line that says which and where; without the watch all wait."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from real_processes import PYTHON_INSIGHT, started, wait_until_there
from torch.distributed.constants import default_pg_timeout

from insight.api.run_config import RunConfig
from insight.training.lightning_internals import let_collectives_wait
from insight.training.parallel import FSDP2Strategy

SECONDS = 15.0
CALLBACK = '''\
"""A callback of the user's own that never comes back."""

import time
from pathlib import Path

from lightning.pytorch import Callback


class FallsAsleep(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            Path("asleep").touch()
            self.dream()

    def dream(self):
        time.sleep(3600)
'''
FIT = ("fit", "--config", "tiny.yaml", "--trainer.devices", "2", "--trainer.strategy", "ddp")
FIT += ("--trainer.accelerator", "cpu", "--trainer.max_steps", "100")
FIT += ("--trainer.callbacks+", "falls_asleep.FallsAsleep")


@pytest.mark.slow
def test_a_hung_process_is_named(workplace: Path) -> None:
    (workplace / "falls_asleep.py").write_text(CALLBACK, encoding="utf-8")
    command = [*PYTHON_INSIGHT, *FIT, "--run.hang_timeout", str(SECONDS)]
    with started(command, workplace, "hung") as running:
        outcome = running.wait()
    run = workplace / "runs/tiny/1"
    assert (workplace / "asleep").exists()
    assert outcome.code == 1, outcome.err
    errors = [line for line in outcome.err.splitlines() if "error" in line]
    assert len(errors) == 1, outcome.err
    assert errors[0].startswith("insight: error: rank 1 has not finished step 3 for ")
    line = CALLBACK.splitlines().index("        time.sleep(3600)") + 1
    assert f"falls_asleep.py:{line} (dream)" in errors[0]
    stacks = {path.name: path.read_text(encoding="utf-8") for path in (run / "hang").iterdir()}
    assert stacks.keys() == {"rank-0.txt", "rank-1.txt"}
    assert "in dream" in stacks["rank-1.txt"]
    assert "in dream" not in stacks["rank-0.txt"]
    notes = json.loads((run / "run.json").read_text(encoding="utf-8"))["notes"]
    assert any("rank 1 has not finished step 3" in note for note in notes)


@pytest.mark.slow
def test_without_the_watch_it_would_hang(workplace: Path) -> None:
    (workplace / "falls_asleep.py").write_text(CALLBACK, encoding="utf-8")
    with started([*PYTHON_INSIGHT, *FIT, "--run.hang_timeout", "null"], workplace, "waiting") as running:
        wait_until_there(workplace / "asleep", running)
        time.sleep(1.2 * SECONDS)
        assert running.process.poll() is None, running.log.read_text()


@pytest.mark.parametrize("make", [DDPStrategy, FSDP2Strategy])
def test_the_watch_judges_before_an_exchange_times_out(make: type[DDPStrategy] | type[FSDP2Strategy]) -> None:
    default = RunConfig().hang_timeout
    assert default is not None
    for seconds in (default, 3600.0):
        strategy = make()
        let_collectives_wait(strategy, seconds)
        assert strategy._timeout is not None
        assert strategy._timeout >= max(default_pg_timeout, timedelta(seconds=seconds + 120))


def test_a_time_out_of_the_user_stays() -> None:
    strategy = DDPStrategy(timeout=timedelta(seconds=90))
    let_collectives_wait(strategy, 3600)
    assert strategy._timeout == timedelta(seconds=90)
    let_collectives_wait(SingleDeviceStrategy(), 3600)  # which exchanges nothing
