"""The sums over samples and positions that a convolution's weight gradient is."""
