"""Buckets that a fleet shares through Redis."""
