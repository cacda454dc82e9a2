"""The wheel carries configs and corpora: built, installed elsewhere, and used without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The whole demo, all of its parts, with little to do in each.
SHORT = ROOT / "tests" / "short_quickstart.yaml"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built with the build backend of this environment: no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("insight-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "insight/configs/quickstart.yaml" in names
    assert sum(name.endswith(".txt.xz") for name in names) == 6
    assert sum(name.endswith(".tsv.xz") for name in names) == 3
    assert wheel.stat().st_size < 5e6
    assert any(name.endswith("PROVENANCE.md") for name in names)
    assert any(name.endswith(".j2") for name in names)
    assert {"insight/safety/data/toxicity_model.json", "insight/safety/data/bias_pairs.txt"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "runs", "configs"))]


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "with a space", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(installed)]
    subprocess.run([*install, str(wheel)], capture_output=True, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    # The new environment sees the dependencies of this one, but not its editable installs (no .pth is read).
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(installed), sysconfig.get_path("purelib")]),
        "INSIGHT_CACHE_DIR": str(tmp_path / "cache"),
    }
    python = str(tmp_path / "venv" / "bin" / "python")
    where = subprocess.run(
        [python, "-c", "import insight; print(insight.__file__)"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(installed))
    done = subprocess.run(
        [python, "-m", "insight", "demo", "--config", str(SHORT)],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = elsewhere / done.stdout.splitlines()[-1].split()[0]
    assert report.name == "report.html"
    assert report.is_file()
    assert "It is a truth" in done.stdout
    # What these need of package data was in the wheel: suites of sentences, the classifier, templates.
    assert (report.parent / "quantization" / "report.json").is_file()
    assert (report.parent / "safety" / "summary.json").is_file()
