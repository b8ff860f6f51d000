"""Faster graphs of a network: fused for running it forward, rewritten for training, other precisions."""
