"""HTTP to domain and back, one module an endpoint; what ASGI is, only ``server`` knows."""
