"""Errors: a stable code for programs, a text for people, and what callers need to know to try again."""

from fastauth.domain.errors import FastauthError, Overloaded, Unavailable


def test_an_unavailable_dependency_is_named_and_may_be_asked_again() -> None:
    error = Unavailable("database", "disk full")
    assert str(error) == "database is unavailable: disk full"
    assert (error.code, error.dependency, error.retry_after_s) == ("unavailable", "database", 1)
    assert Unavailable("database", "x", retry_after_s=7).retry_after_s == 7


def test_an_overload_says_how_long_to_wait() -> None:
    error = Overloaded(3)
    assert (error.code, error.retry_after_s) == ("overloaded", 3)


def test_every_error_is_caught_as_one_kind() -> None:
    for error in (Unavailable("a", "b"), Overloaded(1)):
        assert isinstance(error, FastauthError)
