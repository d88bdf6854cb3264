"""One folder an operation, its `__init__` the contract, `reference` plain PyTorch, a file for each faster twin.

Pure functions of tensors, which import nothing of the rest of the package. CUDA, numba and Triton are imported when a
call asks for them.
"""
