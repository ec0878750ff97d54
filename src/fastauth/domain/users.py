"""What a user is: the name by which a person logs in, the opaque subject, the scope."""

import re
from functools import lru_cache

import msgspec

from fastauth.domain.errors import PasswordRefused, UserNameRefused
from fastauth.domain.identity import LOCAL

MAX_NAME_BYTES = 255
MAX_PASSWORD_BYTES = 1024

_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+")


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account.

    ``sub`` is opaque and never reused, ``name`` canonical, ``scope`` None for the configured default,
    ``credential_generation`` how often the password was replaced (what is bound to an earlier one is void), ``source``
    who checks the password and ``subject`` the id of the account there (of a local one None; others have no
    ``password_hash``: it is empty), times in seconds since 1970 UTC.
    """

    sub: str
    name: str
    password_hash: str
    scope: str | None = None
    disabled: bool = False
    credential_generation: int = 0
    created_at_s: int
    updated_at_s: int
    source: str = LOCAL
    subject: str | None = None

    def __repr__(self) -> str:  # the hash never reaches a log or a traceback
        return f"User(sub={self.sub!r}, name={self.name!r}, disabled={self.disabled})"


def canonical_name(name: str) -> str:
    """The one spelling of a user name: RFC 8265 section 3.3, UsernameCaseMapped.

    Width and case are mapped and NFC applied, so ``Ａdmin`` and ``admin`` are one account; spaces, controls
    and compatibility characters are refused. Raises UserNameRefused, whose text does not repeat the name.
    """
    if len(name) > MAX_NAME_BYTES:  # before the mapping, whose work grows with the length
        raise UserNameRefused(f"the user name is longer than {MAX_NAME_BYTES} characters")
    if _PRINTABLE_ASCII.fullmatch(name):  # what PRECIS does to such a name, 20 times faster
        canonical = name.lower()
    else:
        from precis_i18n import get_profile  # 12 ms of import that most processes never need

        try:
            canonical = get_profile("UsernameCaseMapped").enforce(name)
        except UnicodeEncodeError as refusal:
            reason = refusal.reason.partition("/")[2].replace("_", " ") or "empty"
            raise UserNameRefused(f"the user name is not allowed ({reason}; RFC 8265)") from None
    if len(canonical.encode()) > MAX_NAME_BYTES:
        raise UserNameRefused(f"the user name is longer than {MAX_NAME_BYTES} bytes")
    return canonical


def skeleton(canonical: str) -> str:
    """What a canonical name looks like: equal skeletons are one account or a refusal, never two.

    Characters beyond ASCII are replaced by the plainest character that they can be confused with
    (Unicode TR 39 section 4 and its table), so the Cyrillic ``аdmin`` has the skeleton ``admin``. ASCII stands for
    itself: ``user1`` and ``userl`` are both ordinary names.
    """
    if canonical.isascii():
        return canonical
    import unicodedata

    plain = "".join(_plainest(char) for char in unicodedata.normalize("NFD", canonical))
    return unicodedata.normalize("NFC", plain).lower()


@lru_cache(maxsize=1024)
def _plainest(char: str) -> str:
    """ASCII as it is; else the ASCII that a chain of look-alikes first leads to; else the least of the chain."""
    if char.isascii():
        return char
    from confusable_homoglyphs import confusables  # 40 ms and a megabyte, for non-ASCII names only

    chain = [char]
    for link in chain:  # grows while it is walked; the longest in Unicode's table has some dozens of links
        alike: list[str] = [entry["c"] for entry in confusables.confusables_data.get(link, ())]
        if plain := [text for text in alike if text.isascii()]:
            return min(plain, key=lambda text: (len(text), not text.islower(), text))
        chain.extend(text for text in alike if len(text) == 1 and text not in chain)
    return min(chain)


def check_new_password(password: str) -> str:
    """A password that may be stored; every character counts and none is changed. Raises PasswordRefused."""
    if not password:
        raise PasswordRefused("the password is empty")
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        raise PasswordRefused("the password is not valid Unicode") from None
    if size > MAX_PASSWORD_BYTES:
        raise PasswordRefused(f"the password is longer than {MAX_PASSWORD_BYTES} bytes")
    return password
