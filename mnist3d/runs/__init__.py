"""One run: described, built, resumed, opened again."""
