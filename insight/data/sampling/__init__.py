"""Which tokens go into which batch: pure functions of seed, epoch and index."""

from insight.data.sampling.evaluation_windows import EvaluationWindows
from insight.data.sampling.permutation import permute, random_integer
from insight.data.sampling.window_order import WindowOrder

__all__ = ["EvaluationWindows", "WindowOrder", "permute", "random_integer"]
