"""The reasons why a volume moves, one file each."""
