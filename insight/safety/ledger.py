"""The ledger: a file of the target's answers so far, flushed before the next batch is recorded."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from insight.runtime.errors import OutputError
from insight.runtime.files import flush, own_file, writing_to
from insight.safety.plan import Plan, content_hash
from insight.safety.records import Response

FORMAT_VERSION = 1


class Ledger:
    """An append-only file: a header that names plan and target, then one line per batch, in order.

    Every line is flushed to the disk before :meth:`append` returns. When the file is opened again, a line
    that a crash cut short is dropped, and its whole batch is asked again. ``responses`` are those of the
    batches that have been answered, in order.

    Raises:
        OutputError: The ledger belongs to another plan or target, is damaged, or cannot be written.
    """

    def __init__(self, path: Path, plan: Plan, identity: str) -> None:
        self.path = path
        self._keys = [content_hash([plan.items[index].content for index in batch]) for batch in plan.batches]
        header = {"format_version": FORMAT_VERSION, "plan": plan.key, "target": identity}
        with writing_to(path):
            lines = _whole_lines(path)
            self.responses = self._check(lines, header) if lines else []
            self._size = sum(len(line) + 1 for line in lines)
            if not lines:
                self._write(header)
                flush(path.parent)

    def append(self, responses: Sequence[Response]) -> None:
        """Write the responses of the next batch.

        Raises:
            OutputError: Writing failed, or another process writes to the same ledger.
        """
        key = self._keys[len(self.responses)]
        with writing_to(self.path):
            self._write({"batch": key, "responses": [_to_plain(response) for response in responses]})
        self.responses.append(tuple(responses))

    def _write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
        with self.path.open("ab") as file:
            if file.tell() != self._size:
                problem = f"{self.path}: another process writes to it too"
                raise OutputError(problem, "let that one finish, or choose another output")
            self._size += file.write(line.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())

    def _check(self, lines: list[bytes], header: dict[str, Any]) -> list[tuple[Response, ...]]:
        try:
            first, *records = [json.loads(line) for line in lines]
            keys = [record["batch"] for record in records]
            found = [tuple(map(_from_plain, record["responses"])) for record in records]
            differing = [name for name in header if first.get(name) != header[name]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{self.path}: the ledger is damaged", "remove it to start again") from error
        if differing:
            what = {"plan": "another plan", "target": "another model"}.get(differing[-1], "another version")
            remedy = "choose another output folder, or remove it"
            raise OutputError(f"{self.path}: is the ledger of {what}", remedy)
        if keys != self._keys[: len(keys)]:
            raise OutputError(f"{self.path}: the ledger is damaged", "remove it to start again")
        return found


def _whole_lines(path: Path) -> list[bytes]:
    """The complete lines of the file; an incomplete last line is cut off."""
    if not path.exists():
        return []
    own_file(path)
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("rb+") as file:
            file.truncate(end)
            os.fsync(file.fileno())
    return content[:end].splitlines()


def _to_plain(response: Response) -> dict[str, Any]:
    """The fields that differ from their defaults, with ``None`` for NaN and infinity, which JSON lacks."""
    plain: dict[str, Any] = {}
    if response.texts:
        plain["texts"] = response.texts
    if response.log_likelihoods:
        values = response.log_likelihoods
        plain["log_likelihoods"] = [value if math.isfinite(value) else None for value in values]
    if response.status != "ok":
        plain |= {"status": response.status, "message": response.message}
    return plain


def _from_plain(plain: dict[str, Any]) -> Response:
    values = plain.get("log_likelihoods", ())
    numbers = tuple(math.nan if value is None else float(value) for value in values)
    return Response(
        tuple(plain.get("texts", ())), numbers, plain.get("status", "ok"), plain.get("message", "")
    )
