"""Keys that nobody should use, made once."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa


@pytest.fixture(scope="session")
def weak_key() -> rsa.RSAPrivateKey:
    """Breakable: that it is refused is what is tested."""
    return rsa.generate_private_key(65537, 1024)  # noqa: S505
