"""Stands before the library of this name on the path where it is to be measured without."""

raise ImportError("left out of this measurement")
