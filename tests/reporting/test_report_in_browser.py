"""The page in a real browser: the charts are drawn, nothing is fetched, hostile text executes nothing.

The browser's proxy is a server of the test, so that every request to any host, also to this machine,
arrives there and is written down.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from insight.reporting import Sample, append_sample, update_run_info, write_report
from insight.runtime.run_folder import RunFolder

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOST = "canary.invalid"
# What the browser asks for whatever page it shows: updates, the time, its account service.
BROWSERS_OWN_HOSTS = {
    "accounts.google.com",
    "android.clients.google.com",
    "clients2.google.com",
    "optimizationguide-pa.googleapis.com",
    "redirector.gvt1.com",
    "update.googleapis.com",
    "www.google.com",
}
HOSTILE = (
    f"</script></pre><script>document.title='hacked'; fetch('http://{HOST}/fetch')</script>"
    f"<img src='http://{HOST}/image' onerror=\"document.title='hacked'\">"
    f"<link rel=stylesheet href='http://{HOST}/style'><iframe src='http://{HOST}/frame'></iframe>"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium (apt-get install chromium)"),
]


class Recorder(BaseHTTPRequestHandler):
    """Refuses everything and notes the address."""

    def __init__(self, requests: list[str], *arguments: object) -> None:
        self.requests = requests
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        host = urlsplit(self.path).hostname or self.path.partition(":")[0]
        if host not in BROWSERS_OWN_HOSTS:
            self.requests.append(self.path)
        self.send_error(403)

    do_CONNECT = do_GET  # noqa: N815 (the name that the server looks for)
    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Recorder, requests))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


def open_page(path: Path, proxy: str, profile: Path) -> str:
    """The document after its scripts have run."""
    assert BROWSER is not None
    options = [
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
    ]
    command = [BROWSER, *options, f"--user-data-dir={profile}", f"--proxy-server={proxy}"]
    command += ["--proxy-bypass-list=<-loopback>", path.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def make_hostile(run: RunFolder) -> None:
    append_sample(run.samples_path, Sample(200, HOSTILE, HOSTILE))
    update_run_info(
        run.info_path, notes=(HOSTILE,), command=[HOSTILE], stop_reason=HOSTILE, other={HOSTILE: HOSTILE}
    )
    run.config_path.write_text(HOSTILE)
    candidate = {"name": HOSTILE, "status": "ok", "bits_per_byte": 2.0, "disk_bytes": 4e6}
    candidate |= {"tokens_per_second": 9.0, "modules_kept": [{"name": HOSTILE, "reason": HOSTILE}]}
    refused = {"name": HOSTILE, "status": HOSTILE, "reason": HOSTILE}
    report = {"chosen": HOSTILE, "reason": HOSTILE, "candidates": [candidate, refused]}
    (run.path / "quantization").mkdir()
    (run.path / "quantization" / "report.json").write_text(json.dumps(report))


def test_charts_are_drawn_and_hostile_text_does_nothing(
    finished_run: RunFolder, proxy: tuple[str, list[str]], tmp_path: Path
) -> None:
    make_hostile(finished_run)
    document = open_page(write_report(finished_run), proxy[0], tmp_path / "profile")
    assert "<title>demo/1 · Insight</title>" in document
    assert document.count("bk-Figure") >= 8
    assert "&lt;img src=" in document
    assert proxy[1] == []


def test_an_unprotected_page_is_noticed(proxy: tuple[str, list[str]], tmp_path: Path) -> None:
    """The twin: the same text unescaped and without the policy executes and fetches."""
    page = tmp_path / "page.html"
    page.write_text(f"<title>x</title>{HOSTILE}")
    document = open_page(page, proxy[0], tmp_path / "profile")
    assert "<title>hacked</title>" in document
    assert any(HOST in request for request in proxy[1])


def test_the_policy_alone_stops_it(
    finished_run: RunFolder, proxy: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the escaping failed: nothing executes and nothing is fetched."""
    from insight.reporting import report

    make_hostile(finished_run)
    environment = report._environment(10_000)
    environment.autoescape = False
    monkeypatch.setattr(report, "_environment", lambda _: environment)
    document = open_page(write_report(finished_run), proxy[0], tmp_path / "profile")
    assert "<script>document.title='hacked'" in document  # it did get into the page
    assert "<title>hacked</title>" not in document
    assert proxy[1] == []
