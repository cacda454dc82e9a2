"""Hides the library of this name on the path, to measure without it."""

raise ImportError("left out of this measurement")
