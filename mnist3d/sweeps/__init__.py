"""Many runs: planned, run here or on a cluster, compared.

A plan becomes runs; each is a process of its own that trains; what chooses among them is a pair of classifiers that
scores nothing else.
"""
