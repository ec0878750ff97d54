"""Tokens of a time that stands still, and a Django project for those who need one."""

import django
import pytest
from django.conf import settings

from fastauth import Verifier
from fastauth.jose.keys import SigningKey
from tests.verifier.adapters.asking import Tokens, verifier_of

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"],
    MIDDLEWARE=["fastauth.verifier.django.BearerMiddleware"],
    SECRET_KEY="only for tests",
)
django.setup()


@pytest.fixture(scope="session")
def tokens(signing_key: SigningKey, other_key: SigningKey) -> Tokens:
    """Made once: a signature takes a millisecond."""
    return Tokens(signing_key, other_key)


@pytest.fixture
def verifier(signing_key: SigningKey) -> Verifier:
    """The verifier of the service under test."""
    return verifier_of(signing_key)
