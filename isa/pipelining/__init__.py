"""Software pipelining of marked loops: bounds, modulo scheduling, registers, packets, report."""
