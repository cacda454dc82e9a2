"""Which tokens go into which batch: pure functions of seed, epoch and index."""

from insight.data.sampling.length_warmup import SequenceLengthWarmup
from insight.data.sampling.mixture import Mixture
from insight.data.sampling.packing import Packing
from insight.data.sampling.samples import (
    IGNORED_TARGET,
    MAX_SEQUENCE_LENGTH,
    Corpus,
    Rows,
    Samples,
    SamplingConfig,
    permute,
    random_integer,
    require_corpus_names,
)
from insight.data.sampling.token_budget import TokenBudgetOrder
from insight.data.sampling.windows import EvaluationWindows, WindowOrder, Windows

__all__ = [
    "MAX_SEQUENCE_LENGTH",
    "require_corpus_names",
    "IGNORED_TARGET",
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
