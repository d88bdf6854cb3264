"""What watches a run.

What it is: progress, figures, pictures, checkpoints, scores, the page, the watchdog. What it is not: no part of the
training; the watchdog aside, none changes the run.
"""
