"""Batches made of rows, and the loaders that hand them out."""
