"""Pretrained weights: where they can still be had, proof that they are right, and how they are carried over."""
