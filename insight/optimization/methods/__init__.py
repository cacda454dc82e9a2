"""The methods of quantization by name: one file each, imported when it is used."""

from insight.optimization.methods.registry import METHODS, find_method

__all__ = ["METHODS", "find_method"]
