"""The progress line in a real pseudo-terminal, through a pipe, and as a pure function."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from insight.callbacks.progress_line import FittedLine, duration

HERE = Path(__file__).parent
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

RUN = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from insight.runtime.messages import silence_libraries
    silence_libraries()
    from lightning.pytorch import Callback
    from tiny_run import TinyData, TinyModule, tiny_fit
    from insight.callbacks import ProgressLine, ThroughputMonitor
    from insight.runtime.messages import say

    class Slow(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            time.sleep(0.02)
            if trainer.global_step == 15:
                say("a message")
                print("to stdout")

    line = ProgressLine(float(sys.argv[3]))
    callbacks = [line, ThroughputMonitor(), Slow()]
    trainer, module = tiny_fit(Path(sys.argv[2]), callbacks, enable_progress_bar=True)
    trainer.test(module, datamodule=TinyData(), verbose=False)
""")


def in_terminal(folder: Path, columns: int, **environment: str) -> str:
    """Everything that a terminal of ``columns`` columns receives."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    settings = {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}
    removed = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", RUN, str(HERE), str(folder), "10"],
        stdin=child,
        stdout=child,
        stderr=child,
        env=removed | settings,
        start_new_session=True,
    )
    os.close(child)
    received = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # Linux reports the end of a terminal so
            break
        if not piece:
            break
        received += piece
    assert process.wait() == 0, received.decode()
    os.close(parent)
    return received.decode()


def on_screen(received: str, columns: int) -> list[str]:
    """The lines that are left on the screen: a small terminal that knows \\r, \\n, up and erase-line."""
    rows: list[list[str]] = [[]]
    column = current = 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", received, flags=re.DOTALL):
        row = rows[current]
        if token == "\r":
            column = 0
        elif token == "\n":
            current += 1
            if current == len(rows):
                rows.append([])
        elif token == "\x1b[1A":
            current -= 1
        elif token == "\x1b[2K":
            row.clear()
        elif token.startswith("\x1b"):
            continue
        else:
            assert column < columns, "a line wrapped"
            row.extend(" " * (column + 1 - len(row)))
            row[column] = token
            column += 1
    return ["".join(row).rstrip() for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [100, 32])
def test_a_terminal_keeps_one_line_and_every_message(tmp_path: Path, columns: int) -> None:
    received = in_terminal(tmp_path, columns, NO_COLOR="" if columns == 100 else "1")
    if columns == 100:
        lines = on_screen(received, columns)
        said = [line for line in lines if line.startswith("insight: ")]
        assert [line.split(":")[1].strip() for line in said[:3]] == ["step 10", "a message", "step 20"]
        assert said[3].startswith("insight: step 30: validation ")
        assert re.fullmatch(r"insight: trained 30 steps in 0:\d\d, [\d,]+ tokens/s, .*", said[4])
        assert said[5].startswith("insight: test ")
        assert "to stdout" in lines
        assert not any("━" in line or "─" in line for line in lines), "the bar is gone at the end"
        assert re.search(
            r"\r.*train .*━.* 2\d/30 · loss \d\.\d\d\d · 0:0\d left · \d\.\d+ bits/byte", received
        )
        assert "\x1b[36m" in received
    else:
        drawings = [piece for piece in received.split("\r") if "/30" in piece and "step" not in piece]
        assert drawings
        for drawing in drawings:
            assert len(ESCAPES.sub("", drawing)) < columns
        assert "\x1b[36m" not in received


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}])
def test_a_pipe_gets_plain_lines(tmp_path: Path, environment: dict[str, str]) -> None:
    if environment:
        received = in_terminal(tmp_path, 100, **environment).replace("\r\n", "\n")
    else:
        command = [sys.executable, "-W", "ignore", "-c", RUN, str(HERE), str(tmp_path), "0.2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        received = done.stderr
        progress = re.findall(r"^insight: train \d+/30, loss \d\.\d+, 0:\d\d left.*tokens/s", received, re.M)
        assert 1 <= len(progress) <= 8
    assert "\x1b" not in received
    assert "\r" not in received
    assert received.count("validation") == 3
    assert re.search(r"^insight: trained 30 steps in ", received, re.M)


FACTS = st.lists(st.text("abc 123,.", min_size=1, max_size=20), min_size=1, max_size=6)


def drawn(title: str, share: float, facts: list[str], columns: int, encoding: str = "utf-8") -> str:
    """What a terminal of ``columns`` columns and an encoding receives."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(file=file, width=columns, force_terminal=True, legacy_windows=False)
    console.print(FittedLine(title, share, facts), end="", soft_wrap=True)
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@given(st.floats(-1, 2), FACTS, st.integers(2, 200), st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_a_line_leaves_the_last_column_free(
    share: float, facts: list[str], columns: int, encoding: str
) -> None:
    assert len(ESCAPES.sub("", drawn("train", share, facts, columns, encoding))) < columns


def test_facts_are_dropped_from_the_end() -> None:
    facts = ["10/20", "loss 1.000", "0:10 left", "5 tokens/s"]
    assert drawn("train", 0.5, facts, 81).endswith("10/20 · loss 1.000 · 0:10 left · 5 tokens/s")
    assert ESCAPES.sub("", drawn("train", 0.5, facts, 36)).endswith("10/20 · loss 1.000")
    assert "━" in drawn("train", 0.5, facts, 36)
    assert drawn("train", 0.5, ["10/20"], 11) == "train 10/2"


def test_durations_read_like_a_clock() -> None:
    assert [duration(seconds) for seconds in (-1, 0.4, 59.6, 727, 12_000)] == [
        "0:00",
        "0:00",
        "1:00",
        "12:07",
        "3:20:00",
    ]
