"""Variants side by side, after equal time or equal steps.

What is compared becomes the runs of a sweep; their measurements become one table and one figure.
"""
