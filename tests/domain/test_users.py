"""User names, scopes and new passwords: one spelling for each account, and no two accounts that look alike."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from precis_i18n import get_profile

from fastauth.domain.errors import PasswordRefused, UserNameRefused
from fastauth.domain.users import (
    MAX_NAME_BYTES,
    MAX_PASSWORD_BYTES,
    User,
    canonical_name,
    check_new_password,
    skeleton,
)
from tests.cases import each


def canonical_or_none(name: str) -> str | None:
    try:
        return canonical_name(name)
    except UserNameRefused:
        return None


# ------------------------------------------------------------------ canonical names


@each(
    ("name", "canonical"),
    [
        ("juliet@example.com", "juliet@example.com"),
        ("fussball", "fussball"),
        ("fußball", "fußball"),
        ("π", "π"),
        ("Σ", "σ"),
        ("σ", "σ"),
        ("ς", "ς"),
        ("foo bar", None),
        ("", None),
        ("henryⅣ", None),
        ("♚", None),
        ("∞", None),
    ],
)
def test_the_examples_of_rfc_8265_section_3_5(name: str, canonical: str | None) -> None:
    assert canonical_or_none(name) == canonical


@each(
    ("name", "canonical"),
    [
        ("Alice", "alice"),
        ("Ａｌｉｃｅ", "alice"),
        ("ÉMILE", "émile"),
        ("E\u0301mile", "émile"),
        ("ｱ", "ア"),
        ("İ", "i\u0307"),
        ("\u212a", "k"),
        ("a.b-c_d+e!#$%&'*/=?^`{|}~", "a.b-c_d+e!#$%&'*/=?^`{|}~"),
        ('"<>\\[]', '"<>\\[]'),
        ("x" * MAX_NAME_BYTES, "x" * MAX_NAME_BYTES),
    ],
)
def test_case_width_and_accents_have_one_spelling(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical


@each(
    "name",
    [
        *(" ", "a b", " alice", "alice ", "alice\t", "alice\n", "\x00", "a\x00b", "\x7f", "\x1b[31m", "a\r\nb", "\x85"),
        *("alice\u00a0", "alice\u200b", "al\u00adice", "\ufeffalice", "\u202eecila", "alice\u2028", "alice\u3000"),
        *("ﬁona", "ſam", "x²", "½", "ⓐlice", "𝐚lice", "\ue000", "\U0010ffff", "\ud800", "a\udfff", "\u0378"),
    ],
)
def test_spaces_controls_and_compatibility_characters_are_refused(name: str) -> None:
    with pytest.raises(UserNameRefused) as refusal:
        canonical_name(name)
    assert len(name) < 3 or name not in str(refusal.value)
    assert str(refusal.value).isprintable()


@each("name", ["x" * (MAX_NAME_BYTES + 1), "é" * 128, "😀" * 64, "Ａ" * 256, "x" * 1_000_000])
def test_a_name_beyond_255_bytes_is_refused(name: str) -> None:
    assert canonical_or_none(name) is None


def test_the_bound_is_on_the_canonical_spelling() -> None:
    assert canonical_name("Ａ" * MAX_NAME_BYTES) == "a" * MAX_NAME_BYTES


_precis = get_profile("UsernameCaseMapped")


def precis_or_none(name: str) -> str | None:
    try:
        enforced: str = _precis.enforce(name)
    except UnicodeEncodeError:
        return None
    return enforced


def test_every_ascii_character_is_judged_as_precis_judges_it() -> None:
    for point in range(128):
        for name in (chr(point), f"a{chr(point)}", f"{chr(point)}Z"):
            assert canonical_or_none(name) == precis_or_none(name), ascii(name)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F), max_size=12))
def test_the_fast_path_for_ascii_does_what_precis_does(name: str) -> None:
    assert canonical_or_none(name) == precis_or_none(name)


_any_text = st.lists(st.integers(0x20, 0x10FFFF) | st.integers(0x20, 0x2FFF), max_size=6).map(
    lambda points: "".join(map(chr, points))
)


@given(_any_text)
def test_a_canonical_name_is_its_own_canonical_name(name: str) -> None:
    canonical = canonical_or_none(name)
    assert canonical is None or canonical_name(canonical) == canonical


@given(st.text(st.sampled_from("aAéÉe\u0301oO\u0308ßÅåÅ한ㅎ"), max_size=5))
def test_composed_and_decomposed_spellings_are_one_account(name: str) -> None:
    composed, decomposed = (canonical_or_none(unicodedata.normalize(form, name)) for form in ("NFC", "NFD"))
    assert composed == decomposed


# ------------------------------------------------------------------ look-alikes


@each(
    "variant",
    [
        *("Admin", "ADMIN", "ａｄｍｉｎ", "ADMİN", "admin ", " admin", "admin\u00a0", "admin\u200b", "\ufeffadmin"),
        *("\u0430dmin", "adm\u0456n", "\u0430dm\u0456n", "\u0251dmin", "adm\u0131n", "\u03b1dmin", "a\u0501min"),
        *("ad\u00admin", "admin\u200d", "ⓐdmin", "𝐚dmin", "admin\x00", "admin\n", "admin\u202e"),
    ],
)
def test_what_looks_like_admin_is_admin_or_is_refused(variant: str) -> None:
    canonical = canonical_or_none(variant)
    assert canonical is None or skeleton(canonical) in {"admin", "admi\u0307n"}
    if canonical == "admi\u0307n":  # what Unicode makes of a Turkish capital I: its dot is visible twice
        assert variant == "ADMİN"


@each(
    ("one", "other"),
    [("paypal", "раураl"), ("root", "rооt"), ("support", "ѕuрроrt"), ("olivia", "οlivia"), ("émile", "e\u0301mile")],
)
def test_letters_of_other_scripts_look_like_the_latin_ones(one: str, other: str) -> None:
    assert skeleton(canonical_name(one)) == skeleton(canonical_name(other))


@each(
    ("one", "other"),
    [("user1", "userl"), ("user0", "usero"), ("modern", "modem"), ("o'neil", "o`neil"), ("emile", "émile"), ("a", "b")],
)
def test_ordinary_names_do_not_look_alike(one: str, other: str) -> None:
    assert skeleton(canonical_name(one)) != skeleton(canonical_name(other))


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=10))
def test_an_ascii_name_is_its_own_skeleton(name: str) -> None:
    assert skeleton(canonical_name(name)) == canonical_name(name)


@each(("one", "other"), [("八", "ハ"), ("口", "ロ"), ("工", "エ"), ("卜", "ト"), ("力", "カ"), ("二", "ニ")])
def test_ideographs_and_the_kana_that_look_the_same_have_one_skeleton(one: str, other: str) -> None:
    """Unicode TR 39 gives each of these pairs one skeleton."""
    assert skeleton(canonical_name(one)) == skeleton(canonical_name(other))


# ------------------------------------------------------------------ new passwords


@each(
    "password",
    ["x", " ", "  x  ", "\x00", "a\x00b", "Ünïcödé 😀", "e\u0301", "\n", "x" * MAX_PASSWORD_BYTES, "é" * 512],
)
def test_a_new_password_is_taken_unchanged(password: str) -> None:
    assert check_new_password(password) == password


@each("password", ["", "x" * (MAX_PASSWORD_BYTES + 1), "é" * 513, "hunter2\ud800", "\udfffhunter2"])
def test_a_password_that_is_empty_too_long_or_no_unicode_is_refused_without_being_repeated(password: str) -> None:
    with pytest.raises(PasswordRefused) as refusal:
        check_new_password(password)
    assert "hunter2" not in str(refusal.value)
    assert "xxx" not in str(refusal.value)


def test_a_user_that_is_printed_shows_no_hash() -> None:
    user = User(sub="s", name="alice", password_hash="$argon2id$secret", created_at_s=0, updated_at_s=0)
    assert "secret" not in f"{user!r} {user}"
    assert "alice" in repr(user)
