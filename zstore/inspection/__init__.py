"""A look at a file before it is ingested."""
