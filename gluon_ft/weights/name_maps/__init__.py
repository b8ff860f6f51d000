"""Names of PyTorch's parameters and Gluon's, an architecture a module."""
