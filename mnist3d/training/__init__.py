"""The loop, and the reasons why a volume moves."""
