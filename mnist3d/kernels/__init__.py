"""One folder an operation, its `__init__` the contract, `reference` plain PyTorch, a file for each faster twin.

What it is: pure functions of tensors. What it is not: it knows no volumes and imports nothing of the rest; CUDA, numba
and Triton are imported when a call asks for them.
"""
