"""``--data.batch_size auto`` or ``--data.batch_tokens auto``: the largest batch that fits into memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from insight.api.estimate import estimate_network
from insight.callbacks.trainer import run_folder_of
from insight.models.estimate import decoder_of
from insight.runtime.errors import ConfigError
from insight.runtime.failures import is_out_of_memory
from insight.runtime.files import atomic_write_text
from insight.runtime.messages import say
from insight.runtime.resources import resident_bytes, usable_memory_bytes
from insight.training import linear_cross_entropy

if TYPE_CHECKING:
    from insight.api.configuration import InsightCLI


# The rest is left for the differences between batches and for other programs.
_SHARE_OF_MEMORY = 0.8
# Larger batches would leave too few steps in an epoch to learn anything.
_LEAST_STEPS_AN_EPOCH = 100


def choose_batch_size(cli: InsightCLI, saved: int | None = None) -> None:
    """Replace ``auto``, if it is set, by the largest batch that fits, in data module and configuration.

    The option is ``data.batch_size`` or ``data.batch_tokens``. The data of ``cli`` is set up; ``saved`` is
    the size that the resumed run found.
    """
    data: Any = cli.datamodule
    if not getattr(data, "chooses_batch_size", False):
        return
    if saved is None:
        trainer = cli.make_trainer()
        batches_a_step = trainer.num_devices * trainer.num_nodes * trainer.accumulate_grad_batches
        # In rows as long as can be, of which an epoch of shorter pairs has fewer.
        most = data.num_training_rows // (batches_a_step * _LEAST_STEPS_AN_EPOCH)
        size = data.size_of(largest_that_fits(_test_of(cli, trainer), max(1, most), data.size_option))
        reason = f"fits into memory and leaves {_LEAST_STEPS_AN_EPOCH} steps an epoch"
        say(f"data.{data.size_option}: {size} on each process, the most that {reason}")
    else:
        size = saved
        say(f"data.{data.size_option}: {size}, as the run has found it")
    _settle(cli, size)
    cli.callbacks.append(AgreedBatchSize(cli))


def largest_that_fits(fits: Callable[[int], bool], most: int, option: str = "batch_size") -> int:
    """The largest of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ... that fits and is at most ``most``.

    The size is doubled as long as it fits; then the quarters in between are tried. If a size fits, all
    smaller ones must fit too.

    Raises:
        ConfigError: 1 does not fit.
    """
    if not fits(1):
        raise _auto_fails(
            option,
            "not even one sequence fits into memory",
            "use shorter sequences or a smaller network, or set activation_checkpointing in model.network",
        )
    size = 1
    while 2 * size <= most and fits(2 * size):
        size *= 2
    base, quarter = size, max(1, size // 4)
    for step in (2 * quarter, quarter):
        if base < size + step < 2 * base and size + step <= most and fits(size + step):
            size += step
    return size


def _auto_fails(option: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(problem, remedy, option=f"data.{option}", value="auto")


class AgreedBatchSize(Callback):
    """Makes all processes of the run in ``cli`` train with the smallest batch size that any of them found."""

    def __init__(self, cli: InsightCLI) -> None:
        self.cli = cli

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask the other processes, before any loader is made."""
        if trainer.world_size == 1 or stage != "fit":
            return
        data = self.cli.datamodule
        own = getattr(data, data.size_option)
        found = torch.tensor(own, device=trainer.strategy.root_device)
        smallest = int(trainer.strategy.reduce(found, reduce_op="min"))
        if smallest == own:
            return
        _settle(self.cli, smallest)
        say(f"data.{data.size_option}: {smallest}, which is what fits on every process")
        if trainer.is_global_zero:
            atomic_write_text(run_folder_of(trainer).config_path, self.cli.saved_config())


def _settle(cli: InsightCLI, size: int) -> None:
    cli.datamodule.use_batch_size(size)
    setattr(cli.config.data.init_args, cli.datamodule.size_option, size)


def _test_of(cli: InsightCLI, trainer: Trainer) -> Callable[[int], bool]:
    strategy: Any = trainer.strategy
    is_sharded = isinstance(strategy, (FSDPStrategy, ModelParallelStrategy))
    if is_sharded or not hasattr(cli.model, "network_config"):
        problem = "cannot be tried with a sharded network or a module of your own"
        raise _auto_fails(cli.datamodule.size_option, problem, "name a number")
    if strategy.root_device.type == "cuda":
        return lambda size: _runs(cli, trainer, size)
    # A failed trial on a CPU does not raise an error but ends the process, so the memory is computed first.
    data, module, num_sharing = cli.datamodule, cli.model, trainer.num_devices
    precision = cli.choices.precision

    def fits(size: int) -> bool:
        vocabulary_size, *of_source = (tokenizer.vocabulary_size for tokenizer in data.tokenizers)
        network = (module.network_config, vocabulary_size, size, data.sequence_length)
        estimate = estimate_network(*network, precision, module.optimizer_config, *of_source)
        needed = (int(estimate["peak_bytes"]) + resident_bytes()) * num_sharing
        return needed <= _SHARE_OF_MEMORY * usable_memory_bytes()

    return fits


def _runs(cli: InsightCLI, trainer: Trainer, size: int) -> bool:
    """Whether a forward and backward pass on random tokens fits beside the optimizer's state."""
    device = trainer.strategy.root_device
    try:
        # The trial must not change the first weights of the run. Other processes own the other devices.
        with torch.random.fork_rng(devices=[device]):
            _one_pass(cli, trainer, size, device)
        return torch.cuda.max_memory_reserved(device) <= _SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[1]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _one_pass(cli: InsightCLI, trainer: Trainer, size: int, device: torch.device) -> None:
    data, module = cli.datamodule, cli.model
    network: Any = module.network_config.build(*(one.vocabulary_size for one in data.tokenizers))
    network = trainer.precision_plugin.convert_module(network).to(device).train()
    states = [torch.empty_like(parameter) for parameter in network.parameters() for _ in range(2)]
    sides = [
        torch.randint(one.vocabulary_size, (size, data.sequence_length), device=device)
        for one in reversed(data.tokenizers)
    ]
    ids = sides[-1]
    with trainer.precision_plugin.forward_context():
        hidden, head_weight = network.head_product(network(*sides))
        soft_cap = decoder_of(module.network_config).logit_soft_cap
        summed = linear_cross_entropy(hidden, head_weight, ids, soft_cap=soft_cap, z_loss=module.z_loss)
    torch.autograd.backward(summed.loss)
    del states
