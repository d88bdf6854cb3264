"""What watches a run.

Progress, figures, pictures, checkpoints, scores, the page, the watchdog. The watchdog aside, none changes the run.
"""
