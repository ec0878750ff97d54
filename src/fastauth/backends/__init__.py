"""Adapters to what lies outside the process; each implements the small ports of ``domain/ports.py``."""
