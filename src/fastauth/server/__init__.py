"""The only place that knows ASGI, granian, uvloop and signals."""
