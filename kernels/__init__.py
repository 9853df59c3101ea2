"""The kernels: programs for the accelerator, written in the language of `isa`."""
