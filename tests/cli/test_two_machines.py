"""Two machines train as one process does: network namespaces that reach each other through a cable only."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import run_insight, write_tiny
from real_processes import losses, run_together

NUM_STEPS = 30
FIT = ("fit", "--config", "tiny.yaml", "--trainer.max_steps", str(NUM_STEPS))
FIT += ("--model.optimizer", "AdamW", "--trainer.accelerator", "cpu", "--trainer.val_check_interval", "10")
# Writes down in which network each process was.
CALLBACK = """\
import os
from pathlib import Path

from lightning.pytorch import Callback


class WritesNetwork(Callback):
    def on_train_start(self, trainer, module):
        Path(f"network-{trainer.global_rank}").write_text(os.readlink("/proc/self/ns/net"))
"""


@dataclass(frozen=True)
class Machine:
    """A network namespace.

    Args:
        name: Of the namespace.
        interface: Its end of the cable.
        address: Of that end.
    """

    name: str
    interface: str
    address: str

    def command(self, *arguments: str) -> list[str]:
        """What runs ``arguments`` in it."""
        return ["ip", "netns", "exec", self.name, *arguments]


def configure(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20)
    if done.returncode:
        pytest.skip(
            f"this system allows no network namespaces: ip {' '.join(arguments)}: {done.stderr.strip()}"
        )


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    """Two of them, with a cable from one to the other and to nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` command to make network namespaces with")
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    number = os.getpid()
    first, second = (
        Machine(f"insight{number}{letter}", f"iv{number}{letter}", f"10.213.7.{host}")
        for host, letter in ((1, "a"), (2, "b"))
    )
    try:
        for machine in (first, second):
            configure("netns", "add", machine.name)
            configure("-n", machine.name, "link", "set", "lo", "up")
        configure(
            *("link", "add", first.interface, "netns", first.name, "type", "veth"),
            *("peer", "name", second.interface, "netns", second.name),
        )
        for machine in (first, second):
            configure("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", machine.interface)
            configure("-n", machine.name, "link", "set", machine.interface, "up")
        yield first, second
    finally:
        for machine in (first, second):
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The cable goes with its ends.
                subprocess.run(["ip", "netns", "delete", machine.name], capture_output=True, timeout=20)


@pytest.mark.slow
def test_two_machines_equal_one_process(machines: tuple[Machine, Machine], workplace: Path) -> None:
    (workplace / "writes_network.py").write_text(CALLBACK, encoding="utf-8")
    commands = [
        machine.command(
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
            *("--rdzv-backend", "c10d", "--rdzv-id", "two", "--local-addr", machine.address),
            *("--rdzv-endpoint", f"{machines[0].address}:29400"),
            # Both have one host name, by which torchrun would tell who serves.
            *("--rdzv-conf", f"is_host={int(machine is machines[0])},join_timeout=100"),
            *("-m", "insight", *FIT, "--data.batch_size", "2"),
            *("--trainer.callbacks+", "writes_network.WritesNetwork"),
        )
        for machine in machines
    ]
    environments = [{"GLOO_SOCKET_IFNAME": machine.interface} for machine in machines]
    first, second = run_together(commands, workplace, environments)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "2 processes on 2 machines" in first.err + second.err
    networks = {(workplace / f"network-{rank}").read_text() for rank in range(2)}
    assert len(networks | {os.readlink("/proc/self/ns/net")}) == 3

    alone = workplace / "alone"
    alone.mkdir()
    write_tiny(alone)
    os.chdir(alone)
    assert run_insight(*FIT).code == 0
    expected = losses(alone / "runs/tiny/1")
    assert len(expected) == NUM_STEPS
    assert losses(workplace / "runs/tiny/1") == pytest.approx(expected, abs=1e-5)
    # What is compared is not the same by itself: another order of the samples has other losses.
    assert run_insight(*FIT, "--data.seed", "1").code == 0
    assert losses(alone / "runs/tiny/2") != pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_without_a_cable_they_would_not_meet(machines: tuple[Machine, Machine], workplace: Path) -> None:
    """The namespaces share nothing else that the processes could have talked through."""
    configure("-n", machines[1].name, "link", "set", machines[1].interface, "down")
    environments = [
        {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": machines[0].address, "MASTER_PORT": "29400"}
        for rank in range(2)
    ]
    insight = (sys.executable, "-m", "insight", *FIT, "--run.rendezvous_timeout", "4")
    first, second = run_together([m.command(*insight) for m in machines], workplace, environments)
    assert (first.code, second.code) == (2, 2), first.err + second.err
    assert "insight: error: 1 of 2 processes came within 4 s: rank 1 is missing" in first.err
    assert f"nobody listens at MASTER_ADDR={machines[0].address}" in second.error_line
