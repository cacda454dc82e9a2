"""What the commands do, as typed functions that return results."""
