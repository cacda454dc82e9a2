"""``--trainer.strategy ddp`` without a second copy of the gradients."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

# Gradients become views of the buckets that are summed (Li et al. 2020, arXiv 2006.15704, section 3.2.3): the
# buckets take no memory beside them, and what was summed need not be copied back.
StrategyRegistry.register(
    "ddp",
    DDPStrategy,
    description="Data parallelism, gradients summed in buckets that they are views of",
    override=True,
    gradient_as_bucket_view=True,
)
