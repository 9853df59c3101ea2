"""Were the results right: comparisons with float64 within what roundings add up to."""
