"""The job files in configs/cluster: shells and parsers take them, and the commands in them are commands."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from insight.api.config_files import shipped_configs
from insight.runtime.errors import InsightError

FOLDER = Path(__file__).parents[2] / "configs/cluster"
SCRIPTS = ("many_nodes.sbatch", "one_node.sbatch")


def command_of_script(text: str) -> list[str]:
    """The arguments of ``insight fit`` in a job script."""
    (line,) = (line for line in text.replace("\\\n", " ").splitlines() if line.startswith("srun "))
    words = shlex.split(line.replace('"$@"', "").replace("$config", "quickstart"))
    return words[words.index("insight") + 1 :]


def command_of_job(text: str) -> list[str]:
    """The arguments of ``insight fit`` in a Kubernetes job."""
    (job,) = (part for part in yaml.safe_load_all(text) if part["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    words = [str(word).replace("/data/config.yaml", "quickstart") for word in container["args"]]
    return words[words.index("insight") + 1 :]


def parse(arguments: list[str]) -> None:
    from insight.api.configuration import InsightCLI

    assert arguments[0] == "fit"
    cli = InsightCLI("fit", arguments[1:])
    assert cli.config.resume == "auto_or_new"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_takes_a_script(name: str) -> None:
    done = subprocess.run(["bash", "-n", str(FOLDER / name)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_command_of_a_script(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    parse(command_of_script(text))
    assert re.search(r"^#SBATCH --signal=USR1@\d+ ", text, re.MULTILINE)
    assert '[ "$code" -eq 143 ]' in text


@pytest.mark.slow
def test_a_wrong_option_in_a_script_would_be_noticed() -> None:
    text = (
        (FOLDER / SCRIPTS[0]).read_text(encoding="utf-8").replace("--run.hang_timeout", "--run.hang_timout")
    )
    with pytest.raises(InsightError) as error:
        parse(command_of_script(text))
    assert (error.value.option, error.value.value) == ("run.hang_timout", None)


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (2, False), (143, True)])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_requeues_a_run_that_made_room(tmp_path: Path, name: str, code: int, requeued: bool) -> None:
    """With an srun that only has an exit code, and an scontrol that writes down what it was asked."""
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "$SRUN_CPUS_PER_TASK" > {tmp_path}/cores\nexit {code}\n')
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    for command in ("srun", "scontrol"):
        (tmp_path / command).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "8"}
    script = ["bash", str(FOLDER / name), "quickstart"]
    done = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, timeout=20)
    assert done.returncode == code
    assert (tmp_path / "cores").read_text() == "8\n"  # which srun does not take over from the job by itself
    asked = tmp_path / "asked"
    assert asked.exists() == requeued
    assert not requeued or asked.read_text() == "requeue 17\n"


@pytest.mark.slow
def test_the_job_of_kubernetes() -> None:
    text = (FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")
    parse(command_of_job(text))
    service, job = yaml.safe_load_all(text)
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    options = dict(word.split("=", 1) for word in container["args"] if word.startswith("--") and "=" in word)
    assert int(options["--nnodes"]) == spec["completions"] == spec["parallelism"]
    assert int(options["--nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert options["--max-restarts"] == "0"
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    grace = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert 30 < int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < grace
    # torchrun's exit code is 1 whatever that of its processes was, so that no rule can go by it.
    assert not [rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    name, service_name = job["metadata"]["name"], service["metadata"]["name"]
    assert options["--rdzv-endpoint"].partition(":")[0] == f"{name}-0.{service_name}"
    assert spec["template"]["spec"]["subdomain"] == service_name
    assert service["spec"]["selector"] == {"job-name": name}


def test_job_files_are_no_configurations() -> None:
    assert not [name for name in shipped_configs() if "kubernetes" in name]
