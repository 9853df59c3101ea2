"""Checked runs: uninitialised reads, broken store latencies, races, forgotten transfers."""
