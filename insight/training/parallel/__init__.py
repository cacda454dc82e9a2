"""Several processes: networks and tensors that are cut over them, and the strategy that cuts."""

from insight.training.parallel.sharded import local, part_like, whole

__all__ = ["local", "part_like", "whole"]
