"""On disk whole or not at all."""
