"""Everything that can be checked without training."""
