"""Measurements of Insight, which run in its environment."""
