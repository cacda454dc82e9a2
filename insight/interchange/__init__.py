"""The name maps between the weights of other libraries and those of Insight."""
