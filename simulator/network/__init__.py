"""A whole network on the chip: its steps, the tensors between them, what they add up to."""
