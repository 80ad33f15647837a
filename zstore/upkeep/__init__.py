"""Keeping stores in order."""
