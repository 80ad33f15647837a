"""CSV: where records begin and end, what stands above them, and how blocks of them become typed columns."""
