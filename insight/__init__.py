"""Insight: train, compress and safety-test transformers from one YAML file."""

__version__ = "0.1.0"
