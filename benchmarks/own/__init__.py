"""What runs in Insight's environment: Insight in the same measurements as its peers."""
