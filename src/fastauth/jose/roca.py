"""ROCA (CVE-2017-15361): RSA keys of a broken generator, known by their modulus alone.

Nemec et al., "The Return of Coppersmith's Attack", CCS 2017, section 3: the library made primes of the form
``k * M + (65537 ** a mod M)`` with M a product of small primes, so that modulo each of them the modulus is a power of
65537. For a random key that holds by chance once in 2**27 or less.
"""

from typing import Final

_GENERATOR: Final = 65537
_PRIMES: Final = (
    *(11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157),  # of the 512-bit keys' M on
)


def _powers(prime: int) -> frozenset[int]:
    return frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(prime - 1))


_FINGERPRINT: Final = tuple((prime, _powers(prime)) for prime in _PRIMES)


def is_roca_weak(modulus: int) -> bool:
    """Whether an RSA modulus has the fingerprint of the broken generator."""
    return all(modulus % prime in powers for prime, powers in _FINGERPRINT)
