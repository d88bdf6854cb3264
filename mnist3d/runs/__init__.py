"""One run: described, built, resumed, opened again.

The configuration, and everything that is made of it.
"""
