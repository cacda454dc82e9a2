"""Whether a precision fits the machine, by rates that were measured on it."""

from __future__ import annotations

from insight.cli.checks.findings import Findings
from insight.runtime.errors import ConfigError
from insight.runtime.hardware import Hardware

_MEASURED = "use --trainer.precision null to have it chosen by measurement"


def check_precision(precision: str, accelerator: str, hardware: Hardware, findings: Findings) -> None:
    """Refuse what would silently become something else, warn of what is slow or coarse here.

    Args:
        precision: Lightning's name.
        accelerator: Where training runs: ``cpu``, ``cuda`` or ``mps``.
        hardware: The machine as measured.
        findings: Where to keep what is wrong.
    """
    if accelerator == "cpu" and precision in ("16-mixed", "16"):
        findings.refuse(
            ConfigError(
                f"trainer.precision={precision}: there is no mixed float16 on a CPU",
                "use --trainer.precision bf16-mixed or 32-true",
            )
        )
    elif precision == "16-true":
        findings.warn(
            "trainer.precision=16-true: gradients below 6e-8 become zero without a scale for the loss",
            "use --trainer.precision bf16-true or 16-mixed",
        )
    if not precision.startswith("bf16") or hardware.accelerator != accelerator:
        return
    single, half = (hardware.matmul_flops.get(name) for name in ("float32", "bfloat16"))
    if half is None:
        findings.warn(
            f"trainer.precision={precision}: this {accelerator} device has no bfloat16 of its own", _MEASURED
        )
    elif single and half < single:
        findings.warn(
            f"trainer.precision={precision}: bfloat16 products run at {half / single:.2g} times the rate of "
            "float32 ones on this machine",
            _MEASURED,
        )
