"""Which tokens go into which batch: pure functions of seed, epoch and index."""

from insight.data.sampling.evaluation_windows import EvaluationWindows
from insight.data.sampling.length_warmup import SequenceLengthWarmup
from insight.data.sampling.mixture import Mixture
from insight.data.sampling.packing import Packing
from insight.data.sampling.permutation import permute, random_integer
from insight.data.sampling.samples import Corpus, Rows, Samples, SamplingConfig
from insight.data.sampling.token_budget import TokenBudgetOrder
from insight.data.sampling.window_order import WindowOrder
from insight.data.sampling.windows import Windows

__all__ = [
    "Corpus",
    "EvaluationWindows",
    "Mixture",
    "Packing",
    "Rows",
    "Samples",
    "SamplingConfig",
    "SequenceLengthWarmup",
    "TokenBudgetOrder",
    "WindowOrder",
    "Windows",
    "permute",
    "random_integer",
]
