"""One run: described, built, resumed, opened again.

What it is: the configuration, and everything that is made of it. What it is not: it knows no command line.
"""
