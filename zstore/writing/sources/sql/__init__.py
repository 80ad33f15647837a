"""Queries of databases: asked for in parts, spooled as Arrow, read from there."""
