"""Sampling: which tokens form which batch, as pure functions of seed, epoch and index."""

from insight.data.sampling.length_warmup import SequenceLengthWarmup as SequenceLengthWarmup
from insight.data.sampling.mixture import Mixture as Mixture
from insight.data.sampling.packing import Packing as Packing
from insight.data.sampling.permutation import permute as permute
from insight.data.sampling.permutation import random_integer as random_integer
from insight.data.sampling.samples import IGNORED_TARGET as IGNORED_TARGET
from insight.data.sampling.samples import MAX_SEQUENCE_LENGTH as MAX_SEQUENCE_LENGTH
from insight.data.sampling.samples import Corpus as Corpus
from insight.data.sampling.samples import Rows as Rows
from insight.data.sampling.samples import Samples as Samples
from insight.data.sampling.samples import SamplingConfig as SamplingConfig
from insight.data.sampling.samples import require_corpus_names as require_corpus_names
from insight.data.sampling.token_budget import TokenBudgetOrder as TokenBudgetOrder
from insight.data.sampling.windows import EvaluationWindows as EvaluationWindows
from insight.data.sampling.windows import WindowOrder as WindowOrder
from insight.data.sampling.windows import Windows as Windows
