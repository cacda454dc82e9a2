"""A real browser whose every request is written down.

Its proxy is a server of the test, so that every request to any host, also to this machine, arrives there.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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
