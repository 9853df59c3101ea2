"""The reference engine: one core in Python and numpy, simple enough to trust by reading."""
