"""Random legal programs on both engines: what one computes the other must, to the last bit."""
