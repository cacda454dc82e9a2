"""`insight cache`: says what was kept, finds damage, removes only what nobody uses, and says what it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, run_insight
from filelock import FileLock

from insight.data import ByteTokenizer, Preparation, TextFiles, TokenStore


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Three stores; of ``a.txt`` used now, of ``b.txt`` ten days ago, of ``c.txt`` a hundred."""
    root = tmp_path / "cache"
    for name, days in (("a", 0), ("b", 10), ("c", 100)):
        text = tmp_path / f"{name}.txt"
        text.write_text(f"the text of {name} " * 5000)
        files = TextFiles(str(text), None, None, None, "text", 0.0, 0)
        path = Preparation(files, ByteTokenizer(), root).store("train").path
        moment = time.time() - 86_400 * days
        os.utime(path / "manifest.json", (moment, moment))
    return root


def run(cache: Path, *arguments: str) -> Outcome:
    return run_insight("cache", *arguments, "--cache_dir", str(cache))


def listed(cache: Path) -> list[dict[str, Any]]:
    outcome = run(cache, "list", "--json")
    assert outcome.code == 0
    stores: list[dict[str, Any]] = json.loads(outcome.out)["stores"]
    return stores


def names(cache: Path) -> list[str]:
    return [Path(store["sources"][0]).name for store in listed(cache)]


def test_list_says_size_age_key_source_and_use(cache: Path) -> None:
    assert names(cache) == ["a.txt", "b.txt", "c.txt"]
    first = listed(cache)[0]
    assert first["bytes"] > 140_000
    assert first["tokens"] == 70_001
    assert not first["in_use"]
    store = TokenStore(first["path"])
    assert [store["in_use"] for store in listed(cache)] == [True, False, False]
    lines = run(cache, "list").out.splitlines()
    assert "3 stores, 0.42 MB" in lines[0]
    assert first["key"][:12] in lines[1]
    assert "in use, 70,001 tokens" in lines[1]
    assert "a.txt" in lines[1]
    assert "used 10 d ago" in lines[2]
    del store


def test_empty_cache(tmp_path: Path) -> None:
    assert "0 stores" in run(tmp_path / "nowhere", "list").out
    assert run(tmp_path / "nowhere", "verify").code == 0
    assert "removed 0 stores" in run(tmp_path / "nowhere", "clear", "--all").out
    assert not (tmp_path / "nowhere").exists()


def test_verify_has_an_exit_code(cache: Path) -> None:
    outcome = run(cache, "verify")
    assert outcome.code == 0
    assert "3 stores, none damaged" in outcome.out
    victim = Path(listed(cache)[1]["path"]) / "00000.bin"
    victim.write_bytes(b"?" + victim.read_bytes()[1:])
    outcome = run(cache, "verify")
    assert outcome.code == 1
    assert "00000.bin: damaged" in outcome.out
    assert "3 stores, 1 damaged" in outcome.out
    report = json.loads(run(cache, "verify", "--json").out)
    assert report["damaged"] == 1
    assert [bool(store["damage"]) for store in report["stores"]] == [False, True, False]
    key = listed(cache)[0]["key"]
    assert run(cache, "verify", key[:8]).code == 0


def test_clear_by_age_key_size_and_all(cache: Path) -> None:
    outcome = run(cache, "clear", "--older_than", "30d")
    assert outcome.code == 0
    assert outcome.out.count("removed  used 100 d ago") == 1
    assert "removed 1 store, 0.14 MB freed" in outcome.out
    assert names(cache) == ["a.txt", "b.txt"]
    run(cache, "clear", "--max_gigabytes", "0.0002")
    assert names(cache) == ["a.txt"]
    report = json.loads(run(cache, "clear", "--key", listed(cache)[0]["key"][:10], "--json").out)
    assert report["freed_bytes"] > 100_000
    assert report["stores"][0]["kept_because"] is None
    assert names(cache) == []


def test_clear_keeps_what_is_in_use_or_pinned(cache: Path) -> None:
    keys = [store["key"] for store in listed(cache)]
    assert run(cache, "pin", keys[1][:9]).out == f"pinned {keys[1]}\n"
    script = "import sys; from insight.data import TokenStore; s = TokenStore(sys.argv[1]); print(flush=True)"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{script}; sys.stdin.read()", str(cache / "stores" / keys[0])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"\n"
    outcome = run(cache, "clear", "--all")
    assert outcome.code == 0
    assert "kept: in use" in outcome.out
    assert "kept: pinned" in outcome.out
    assert "removed 1 store" in outcome.out
    assert names(cache) == ["a.txt", "b.txt"]
    holder.kill()
    holder.communicate()
    run(cache, "clear", "--all")
    assert names(cache) == ["b.txt"]
    assert run(cache, "unpin", keys[1]).out == f"unpinned {keys[1]}\n"
    run(cache, "clear", "--all")
    assert names(cache) == []


def test_clear_removes_what_was_set_aside(cache: Path, tmp_path: Path) -> None:
    victim = Path(listed(cache)[0]["path"]) / "00000.bin"
    victim.write_bytes(b"")
    files = TextFiles(str(tmp_path / "a.txt"), None, None, None, "text", 0.0, 0)
    Preparation(files, ByteTokenizer(), cache).store("train")
    assert "set aside as damaged" in run(cache, "list").out
    assert "removed what was set aside as damaged" in run(cache, "clear", "--all").out
    assert list((cache / "quarantine").iterdir()) == []


def test_clear_removes_what_killed_processes_left(cache: Path) -> None:
    stores = cache / "stores"
    for key in ("dead", "alive"):
        (stores / f".{key}.abc.tmp").mkdir()
        (stores / f".{key}.abc.tmp" / "00000.bin").write_bytes(bytes(200_000))
    with FileLock(stores / "alive.lock"):
        outcome = run(cache, "clear", "--all")
    assert outcome.code == 0
    assert "damaged or left half-written: 0.20 MB" in outcome.out
    assert [path.name for path in stores.glob(".*.tmp")] == [".alive.abc.tmp"]


def test_hostile_name_drives_no_terminal(tmp_path: Path) -> None:
    text = tmp_path / "a\x1b[2Jb.txt"
    text.write_text("text")
    files = TextFiles(str(text), None, None, None, "text", 0.0, 0)
    Preparation(files, ByteTokenizer(), tmp_path / "cache").store("train")
    assert "\x1b" not in run(tmp_path / "cache", "list").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clear",), "one of the arguments"),
        (("clear", "--all", "--key", "x"), "not allowed with argument"),
        (("clear", "--older_than", "yesterday"), "--older_than='yesterday': is not an age"),
        (("clear", "--max_gigabytes", "-1"), "--max_gigabytes=-1.0: must be a number, at least 0"),
        (("clear", "--key", "nothing"), "KEY='nothing': no store"),
        (("verify", ""), "KEY='': no store"),
        (("pin", "nothing"), "KEY='nothing': no store"),
        (("lst",), "did you mean 'list'"),
    ],
    ids=str,
)
def test_mistakes(cache: Path, arguments: tuple[str, ...], message: str) -> None:
    outcome = run(cache, *arguments)
    assert outcome.code == 2
    assert message in outcome.error_line
    assert len(names(cache)) == 3


def test_needs_no_torch(cache: Path) -> None:
    script = (
        "import sys; from insight.cli.main import main\n"
        f"main(['cache', 'list', '--cache_dir', {str(cache)!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
