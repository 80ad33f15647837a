"""Times of rows: the ways people write them, as int64 in the units of a store."""
