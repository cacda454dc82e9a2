"""A real browser whose every request is written down.

Its proxy is a server of the test, so that every request to any host, also to this machine, arrives there.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOST = "canary.invalid"
NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium (apt-get install chromium)"),
]
# What the browser asks for whatever page it shows: updates, the time, its account service.
_BROWSERS_OWN_HOSTS = {
    "accounts.google.com",
    "android.clients.google.com",
    "clients2.google.com",
    "optimizationguide-pa.googleapis.com",
    "redirector.gvt1.com",
    "update.googleapis.com",
    "www.google.com",
}
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-domain-reliability",
    "--dump-dom",
    "--virtual-time-budget=8000",
    "--proxy-bypass-list=<-loopback>",
)


class _Recorder(BaseHTTPRequestHandler):
    """Refuses everything and notes the address."""

    def __init__(self, requests: list[str], *arguments: object) -> None:
        self.requests = requests
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        host = urlsplit(self.path).hostname or self.path.partition(":")[0]
        if host not in _BROWSERS_OWN_HOSTS:
            self.requests.append(self.path)
        self.send_error(403)

    do_CONNECT = do_GET  # noqa: N815 (the name that the server looks for)
    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def watched_proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy, and every address that pages asked it for."""
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Recorder, requests))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def open_page(path: Path, proxy: str, profile: Path) -> str:
    """The document after its scripts have run."""
    assert BROWSER is not None
    command = [BROWSER, *_OPTIONS, f"--user-data-dir={profile}", f"--proxy-server={proxy}", path.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    return done.stdout.decode("utf-8", "replace")


class Page:
    """A page in a browser that takes commands over a pipe (Chrome DevTools Protocol), whatever its policy.

    Args:
        profile: Folder for the browser's files.
    """

    def __init__(self, profile: Path) -> None:
        assert BROWSER is not None
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()
        options = [
            option
            for option in _OPTIONS
            if not option.startswith(("--dump-dom", "--virtual-time", "--proxy"))
        ]
        command = [
            BROWSER,
            *options,
            "--remote-debugging-pipe",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]
        # The browser reads commands from descriptor 3 and answers on 4.
        line = f"exec {shlex.join(command)} 3<&{to_browser} 4>&{from_browser}"
        self._process = subprocess.Popen(
            ["bash", "-c", line], pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest = 0, b""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = ""
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")

    def open(self, path: Path, width: int, dark: bool = False, height: int = 900) -> None:
        """Show a file ``width`` CSS pixels wide, and wait until its charts are drawn."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.use_colors(dark)
        self._call("Page.navigate", url=path.as_uri())
        ready = (
            "document.readyState === 'complete' && location.protocol === 'file:' && "
            "[...document.querySelectorAll('.canvas')].every(canvas => canvas.children.length)"
        )
        deadline = time.monotonic() + 60
        while not self.evaluate(ready):
            assert time.monotonic() < deadline, f"{path} is not drawn"
            time.sleep(0.1)
        time.sleep(0.3)

    def use_colors(self, dark: bool) -> None:
        """Show this and later pages in dark or in light colours."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page, as long as it is, as a PNG file."""
        answer = self._call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._commands)
        os.close(self._answers)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", ""):
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._answers, 1 << 16)
                assert read, "the browser has ended"
                self._rest += read
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
