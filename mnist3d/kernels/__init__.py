"""Numerical kernels: one folder an operation, each with a plain PyTorch reference and its faster twins."""
