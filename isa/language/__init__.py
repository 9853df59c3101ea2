"""What kernels are written in: registers and buffers by name, operations, loops, transfers."""
