"""Layouts of one layer: one file a layout."""

from insight.models.blocks.base import Block, BlockLayout
from insight.models.blocks.branch_norm import BranchNorm
from insight.models.blocks.parallel import ParallelResidual
from insight.models.blocks.post_norm import PostNorm
from insight.models.blocks.pre_norm import PreNorm
from insight.models.blocks.sandwich_norm import SandwichNorm

__all__ = ["Block", "BlockLayout", "BranchNorm", "ParallelResidual", "PostNorm", "PreNorm", "SandwichNorm"]
