"""JSON Object Signing: keys, key ring, tokens. CPU only; no I/O, no clock, no randomness of its own."""
