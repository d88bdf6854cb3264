"""A file format's reader and writer side by side."""
