"""``fastauth rehearse``: an open-loop rehearsal against a running installation. The server knows nothing of it."""
