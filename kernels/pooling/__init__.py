"""Device programs of max pooling, forward and backward."""
