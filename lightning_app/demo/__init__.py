"""The demonstration: simulated catchments, whose true answer is known."""
