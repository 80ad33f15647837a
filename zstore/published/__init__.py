"""Public data sets by name: downloaded once, compared with their digests, or taken from a mirror."""
