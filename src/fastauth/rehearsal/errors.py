"""What a rehearsal is refused for, in one line each."""

from fastauth.domain.errors import FastauthError


class RehearsalRefused(FastauthError):
    """A rehearsal that cannot, or must not, be held."""

    code = "rehearsal_refused"
