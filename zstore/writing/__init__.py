"""The way in: sources, sort, shards, ingest."""
