"""The commands as typed functions that return results."""
