"""Windows whose targets lie beyond the rows that are known: what has not happened yet."""
