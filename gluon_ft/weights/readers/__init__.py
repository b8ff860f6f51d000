"""Readers of weights files: PyTorch, safetensors, MXNet's .params; nothing in a file is run."""
