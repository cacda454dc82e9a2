"""The tables of docs/scaling.md: modelled steps of common model sizes over common networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.results_page import table, write_section
from benchmarks.scaling_model import Network, Transformer, Work, ddp_step, fsdp_step

PAGE = ROOT / "docs" / "scaling.md"
# Line rates, and typical measured latencies between two programs.
NETWORKS = (
    Network("10 GbE", 30e-6, 10e9 / 8),
    Network("25 GbE", 20e-6, 25e9 / 8),
    Network("100 GbE", 8e-6, 100e9 / 8),
    Network("InfiniBand NDR (400 Gb/s)", 3e-6, 400e9 / 8),
    Network("NVLink 4 (450 GB/s)", 2e-6, 450e9),
)
# Shapes of Brown et al. 2020 (table 2.1) and Touvron et al. 2023 (LLaMA).
MODELS = (
    Transformer("125M", 12, 768, 50257),
    Transformer("350M", 24, 1024, 50257),
    Transformer("1.3B", 24, 2048, 50257),
    Transformer("7B", 32, 4096, 32000, num_embeddings=2),
)
WORK = Work(num_tokens=8 * 2048, sequence_length=2048, flops_per_second=4e14)
RANKS = (1, 2, 8, 32, 128, 1024)
_STEPS = {"DDP": ddp_step, "FSDP2": fsdp_step}
_STATE_BYTES = 16  # float32 weight, gradient and Adam's two moments


def write_scaling_page(path: Path = PAGE) -> None:
    """Write the tables between the marks of the page."""
    write_section("scaling", scaling_tables(), path)


def scaling_tables() -> str:
    """All tables, one per model size."""
    return "\n\n".join(_part(model) for model in MODELS)


def _part(model: Transformer) -> str:
    state = model.num_parameters * _STATE_BYTES / 1e9
    title = (
        f"**{model.name}**: {model.num_parameters / 1e6:,.0f} million parameters, {state:,.0f} GB of "
        "weights, gradients and optimizer, which DDP holds on every rank and FSDP2 divides."
    )
    header = ("network", *(f"{ranks:,} rank{'s' if ranks > 1 else ''}" for ranks in RANKS))
    return f"{title}\n\n{table(header, list(_rows(model)))}"


def _rows(model: Transformer) -> Iterator[list[str]]:
    alone = WORK.seconds(model)
    for network in NETWORKS:
        for name, step in _STEPS.items():
            seconds = [step(model, WORK, num_ranks, network) for num_ranks in RANKS]
            yield [f"{network.name}, {name}", *(f"{one * 1e3:,.0f} ({alone / one:.0%})" for one in seconds)]
