"""The matrix product over windows that convolutions and fully connected layers are."""
