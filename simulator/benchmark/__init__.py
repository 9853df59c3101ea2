"""How fast the engine is on this host: fixed work, measured beside the host's own sgemm.

`ftm7004 bench` calls `series.measure_all`. It uses what any user can.
"""
