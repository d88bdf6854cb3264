"""What watches a run: progress, figures, pictures, files, scores, the page, the watchdog."""
