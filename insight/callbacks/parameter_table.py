"""Says at the start of training which parameters learn how fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.trainer_parts import run_folder_of
from insight.reporting import update_run_info
from insight.runtime.messages import say
from insight.runtime.text_table import aligned


class ParameterTable(Callback):
    """Prints the optimizer's groups by role: how many numbers, learning rate, weight decay; what is frozen.

    The rates are the full ones, which the schedule multiplies. Where layers have rates of their own, the
    lowest and the highest are given. ``run.json`` and the report have the table too.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        frozen = sum(p.numel() for p in pl_module.parameters() if not p.requires_grad)
        table = parameter_table(groups, frozen)
        for line in aligned(table).splitlines():
            say(line)
        path = run_folder_of(trainer).info_path
        if path.is_file():
            described = {
                role: f"{count}, learning rate {rate}, weight decay {decay}"
                for role, count, rate, decay in table[1:]
            }
            update_run_info(path, parameter_groups=described)


def parameter_table(groups: Iterable[dict[str, Any]], num_frozen: int = 0) -> list[tuple[str, str, str, str]]:
    """Rows (role, numbers, learning rate, weight decay), the head first.

    Args:
        groups: Of a torch optimizer.
        num_frozen: Numbers that no optimizer has.
    """
    by_role: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_role.setdefault(str(group.get("role", "all")), []).append(group)
    table = [("parameters", "numbers", "learning rate", "weight decay")]
    for role, members in by_role.items():
        count = sum(parameter.numel() for group in members for parameter in group["params"])
        rates = [float(group.get("initial_lr", group["lr"])) for group in members]
        decays = [float(group.get("weight_decay", 0.0)) for group in members]
        table.append((role, f"{count:,}", _range(rates), _range(decays)))
    if num_frozen:
        table.append(("frozen", f"{num_frozen:,}", "0", "0"))
    return table


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"
