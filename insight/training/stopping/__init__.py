"""Criteria for stopping early: pure functions of the history of validations, asked by ``EarlyStopping``."""

from insight.training.stopping.base import Advice as Advice
from insight.training.stopping.base import AllOf as AllOf
from insight.training.stopping.base import AnyOf as AnyOf
from insight.training.stopping.base import Criterion as Criterion
from insight.training.stopping.base import EvidenceLine as EvidenceLine
from insight.training.stopping.base import History as History
from insight.training.stopping.base import Validation as Validation
from insight.training.stopping.base import single_advice as single_advice
from insight.training.stopping.criteria import Divergence as Divergence
from insight.training.stopping.criteria import DurationBudget as DurationBudget
from insight.training.stopping.criteria import GrowingGap as GrowingGap
from insight.training.stopping.criteria import Patience as Patience
from insight.training.stopping.criteria import Plateau as Plateau
from insight.training.stopping.criteria import TargetReached as TargetReached
from insight.training.stopping.criteria import TokenBudget as TokenBudget
from insight.training.stopping.extrapolation import ExpectedGain as ExpectedGain
