"""Policies in the environment that they are for: episodes, what came of them, and pictures."""
