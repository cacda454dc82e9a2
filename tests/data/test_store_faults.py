"""Full disks, files that are too large and text that changes while it is read end in one clear line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from insight.data import ByteTokenizer, Preparation, TextFiles
from insight.data.sources.decoding import TextDecoder
from insight.runtime.errors import DataError, OutputError


def prepare(text: Path, cache: Path) -> None:
    files = TextFiles(str(text), None, None, None, "text", 0.0, 0)
    Preparation(files, ByteTokenizer(), cache).store("train").verify()


def left_in(cache: Path) -> list[str]:
    """What is in the folder of the stores besides locks."""
    return [path.name for path in (cache / "stores").iterdir() if path.suffix != ".lock"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk(tmp_path: Path, small_disk: Path) -> None:
    large, small = tmp_path / "large.txt", tmp_path / "small.txt"
    large.write_text("word " * 200_000)
    small.write_text("word " * 20_000)
    with pytest.raises(OutputError, match=r"cache_dir=.*the disk is full.*INSIGHT_CACHE_DIR"):
        prepare(large, small_disk / "cache")
    assert left_in(small_disk / "cache") == []
    prepare(small, small_disk / "cache")  # what was written has given its room back


LIMITED = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[3]]
from test_store_faults import prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_file_that_grows_too_large(tmp_path: Path) -> None:
    text, cache = tmp_path / "a.txt", tmp_path / "cache"
    text.write_text("word " * 100_000)
    arguments = [sys.executable, "-c", LIMITED, str(text), str(cache), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OutputError: cache_dir=" in done.stderr
    assert "File too large" in done.stderr
    assert left_in(cache) == []


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced", "vanishes"])
def test_text_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    text, cache = tmp_path / "a.jsonl", tmp_path / "cache"
    text.write_text('{"text": "some words"}\n' * 1000)
    decode = TextDecoder.decode
    calls = []

    def decode_and_change(
        self: TextDecoder, data: bytes, is_last: bool = False, line: int | None = None
    ) -> str:
        calls.append(data)
        if len(calls) == 100:
            if change == "grows":
                with open(text, "a") as file:
                    file.write('{"text": "one more"}\n')
            elif change == "shrinks":
                with open(text, "r+") as file:
                    file.truncate(23 * 900)
            elif change == "is replaced":
                (tmp_path / "other").write_bytes(text.read_bytes().replace(b"some", b"more"))
                (tmp_path / "other").rename(text)
            else:
                text.unlink()
        return decode(self, data, is_last, line)

    monkeypatch.setattr(TextDecoder, "decode", decode_and_change)
    with pytest.raises(DataError, match=r"changed while it was read|cannot be read"):
        prepare(text, cache)
    assert left_in(cache) == []
