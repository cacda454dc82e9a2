"""Everything that can be checked without training."""

from insight.api.check.examination import Examination as Examination
from insight.api.check.examination import check as check
from insight.api.check.examination import examine_arguments as examine_arguments
