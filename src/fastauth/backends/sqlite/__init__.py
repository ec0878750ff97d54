"""The embedded backend: one SQLite file in WAL mode, keyed reads inline, one writer thread."""
