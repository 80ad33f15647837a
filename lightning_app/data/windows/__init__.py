"""Which windows there are: splits, proofs that they do not overlap, the order of an epoch."""
