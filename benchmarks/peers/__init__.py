"""Code for the peers' environment (``make bench-env``): torch, litgpt and transformers, never Insight."""
