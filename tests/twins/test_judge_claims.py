"""The claims: the compiled core answers exactly as its twin, and both take the stricter reading."""

import itertools
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings

from fastauth import _core, _core_py
from tests.cases import each
from tests.twins.comparing import outcome
from tests.twins.strategies import BEYOND_INT64, EXAMPLES, HIGH, INT64_CORNERS, LOW, ODD_VALUES, Choices, built

Judge = Callable[..., Any]
Read = Callable[..., Any]

MALFORMED, ISSUER, AUDIENCE = _core_py.CLAIMS_MALFORMED, _core_py.CLAIMS_ISSUER, _core_py.CLAIMS_AUDIENCE
EXPIRED, NOT_YET, FUTURE = _core_py.TIMES_EXPIRED, _core_py.TIMES_NOT_YET_VALID, _core_py.TIMES_ISSUED_IN_FUTURE
MAX_DATE: Final = 1 << 53


def judging(core: Any) -> Any:
    """``read_claims`` of claims that are decoded already."""

    def judge(members: Any, issuer: Any, audience: Any, now_s: Any, leeway_s: Any, skew_s: Any) -> Any:
        read = core.read_claims(b"{}", lambda _: members, 16, issuer, audience, now_s, leeway_s, skew_s)
        return read[:-1] if type(read) is tuple else read

    return judge


judge_compiled, judge_twin = judging(_core), judging(_core_py)
both = pytest.mark.parametrize("judge", [judge_compiled, judge_twin], ids=["compiled", "twin"])
both_read = pytest.mark.parametrize("read", [_core.read_claims, _core_py.read_claims], ids=["compiled", "twin"])


class _Text(str):
    """A str that may have been given other manners."""

    __slots__ = ()


GOOD: Final[dict[str, Any]] = {"iss": "i", "sub": "s", "aud": "a", "exp": 200, "iat": 100}
NO_TEXTS: Final[tuple[Any, ...]] = (5, 1.5, True, b"i", ["i"], [], {"i": 1}, _Text("i"))
NO_DATES: Final[tuple[Any, ...]] = (
    *("200", b"200", True, False, [200], {"a": 1}, float("nan"), float("inf"), float("-inf"), 1e300, -1, -0.5, -1e-300),
    *(MAX_DATE + 1, float(MAX_DATE) + 2, HIGH, LOW, *BEYOND_INT64, 5e-324 - 1),
)
DATES: Final = (0, 1, 99, 100, 101, 160, 161, 200, MAX_DATE, MAX_DATE - 1, 0.0, -0.0, 5e-324, 0.5, 99.5, 100.5, 160.5)
SUBJECTS: Final = (
    *("s", "", "a\0b", "\0", "s" * 255, "s" * 256, "é" * 127, "é" * 128, "é" * 127 + "s", "😀" * 63, "😀" * 64),
    *("\ud800" * 85, "\ud800" * 86, "\udfff", "\u20ac" * 85, "\u20ac" * 85 + "s", " ", "\x7f", "\x80" * 127 + "ss"),
)
AUDIENCES: Final[tuple[Any, ...]] = (
    *("a", "b", "", ["a"], ["b", "a"], ["a", "a"], ["b"], [], ["a", 5], [5, "a"], ["a", None], [["a"]], [_Text("a")]),
    *(("a",), {"a"}, {"a": 1}, 5, True, None, b"a", _Text("a"), ["x"] * 50 + ["a"]),
)
_CLAIMS: Final[dict[str, tuple[Any, ...]]] = {
    "iss": ("i", "i", "i", "i", "j", "", None, *NO_TEXTS),
    "sub": (*SUBJECTS, "s", "s", "s", "s", "s", "s", None, *NO_TEXTS),
    "aud": (*AUDIENCES, "a", "a", "a", "a", "a", "a"),
    "exp": (*DATES, *NO_DATES, None, 200, 200, 200, 200, 200.5, 1e9, 1e9, 1e9),
    "iat": (*DATES, *NO_DATES, None, None, None, None),
    "nbf": (*DATES, *NO_DATES, None, None, None, None),
    **dict.fromkeys(("jti", "sid", "scope", "client_id"), ("x", "", "é", "\ud800", *[None] * 20, *NO_TEXTS)),
}


def _arguments(choices: Choices) -> tuple[Any, ...]:
    """Good claims of which a few are anything, and sometimes odd arguments."""
    members = dict(GOOD)
    for _ in range(choices.below(6)):
        name = choices.pick(tuple(_CLAIMS))
        value = choices.pick(_CLAIMS[name])
        if value is None and choices.below(2):
            members.pop(name, None)
        else:
            members[name] = value
    now_s, leeway_s, skew_s = choices.pick((100, 100, 199, 200, 0)), choices.pick((0, 1, 60)), choices.pick((0, 60))
    if choices.below(8) == 0:
        now_s, leeway_s, skew_s = (choices.pick(INT64_CORNERS) for _ in range(3))
    return members, "i", "a", now_s, leeway_s, skew_s


def _types(result: Any) -> Any:
    return [_types(part) for part in result] if isinstance(result, tuple) else type(result)


def assert_same(*arguments: Any) -> None:
    """Both answer with the same value of the same types, all the way down."""
    compiled, twin = outcome(judge_compiled, *arguments), outcome(judge_twin, *arguments)
    assert compiled == twin
    if compiled[0] == "returned":
        assert _types(judge_compiled(*arguments)) == _types(judge_twin(*arguments))


_FOUR: Final = 4  # sets of claims in one example: four times as many for nearly the same time


@settings(max_examples=EXAMPLES // _FOUR)
@given(built(lambda choices: [_arguments(choices) for _ in range(_FOUR)], 22 * _FOUR))
def test_the_compiled_judge_answers_exactly_as_the_twin(several: list[tuple[Any, ...]]) -> None:
    for arguments in several:
        assert_same(*arguments)


def test_any_value_of_any_claim_gets_the_same_answer_from_both() -> None:
    for name, values in _CLAIMS.items():
        for value in (*values, *ODD_VALUES):
            assert_same({**GOOD, name: value}, "i", "a", 100, 0, 60)


@each("position", range(6))
def test_an_odd_argument_gets_the_same_answer_from_both(position: int) -> None:
    for value in (*ODD_VALUES, "", {}, _Text("i"), type("Members", (dict,), {})(GOOD)):
        arguments: list[Any] = [GOOD, "i", "a", 100, 0, 60]
        arguments[position] = value
        assert_same(*arguments)


@both
def test_what_is_no_object_is_malformed(judge: Judge) -> None:
    odd: list[Any] = [None, [], "x", type("Members", (dict,), {})(GOOD)]
    for members in odd:
        assert judge(members, "i", "a", 100, 0, 60) == _core.CLAIMS_MALFORMED


@both
def test_a_wrong_argument_raises_and_a_wrong_claim_never_does(judge: Judge) -> None:
    wrong: list[tuple[int, type[Exception], tuple[Any, ...]]] = [
        (1, TypeError, (None, b"i", _Text("i"))),
        (2, TypeError, (None, b"a", _Text("a"))),
        (3, TypeError, (None, True, 100.0)),
        (4, ValueError, (-1, LOW)),
        (5, ValueError, (-1, LOW)),
        (5, OverflowError, (HIGH + 1,)),
    ]
    for position, error, values in wrong:
        for value in values:
            arguments: list[Any] = [GOOD, "i", "a", 100, 0, 60]
            arguments[position] = value
            with pytest.raises(error):
                judge(*arguments)
    for name, values in _CLAIMS.items():
        for value in values:
            judge({**GOOD, name: value}, "i", "a", 100, 0, 60)


# ------------------------------------------------------------------ before there are claims


@both
def test_only_a_dict_has_claims(judge: Judge) -> None:
    for members in (None, [], "x", 5, [GOOD], type("Members", (dict,), {})(GOOD)):
        assert judge(members, "i", "a", 100, 0, 60) == MALFORMED


@both_read
def test_a_payload_is_scanned_before_it_is_decoded(read: Read) -> None:
    def decode(payload: bytes) -> Any:
        raise AssertionError(payload)

    for payload in (b'{"a":1,"a":2}', b'{"a":[[[]]]}', b"{", b"\xff", b'{"\\u0061":1,"a":2}', b'"\n"'):
        assert read(payload, decode, 3, "i", "a", 100, 0, 60) == MALFORMED


@both_read
def test_what_decoding_raises_is_passed_on_and_a_wrong_payload_or_depth_is_refused(read: Read) -> None:
    with pytest.raises(ZeroDivisionError):
        read(b"{}", lambda payload: 1 // 0, 16, "i", "a", 100, 0, 60)
    for payload in ("{}", bytearray(b"{}"), None):
        with pytest.raises(TypeError, match="data must be bytes"):
            read(payload, lambda _: GOOD, 16, "i", "a", 100, 0, 60)
    for max_depth, error in ((0, ValueError), (65, ValueError), (True, TypeError), (None, TypeError)):
        with pytest.raises(error):
            read(b"{}", lambda _: GOOD, max_depth, "i", "a", 100, 0, 60)


@both_read
def test_issuer_and_payload_come_back_as_the_very_objects_that_were_handed_in(read: Read) -> None:
    issuer, payload = "https://auth.example/" + str(5), b'{"iss":"?"}'
    claims = {**GOOD, "iss": "https://auth.example/5"}
    judged = read(payload, lambda _: claims, 16, issuer, "a", 100, 0, 60)
    assert judged[0] is issuer
    assert judged[-1] is payload
    assert len(judged) == 11


# ------------------------------------------------------------------ what is given


@both
def test_good_claims_come_back_in_order_with_the_audience_as_a_tuple(judge: Judge) -> None:
    members = {**GOOD, "nbf": 90, "jti": "j", "sid": "d", "scope": "c", "client_id": "l", "more": [1]}
    assert judge(members, "i", "a", 100, 0, 60) == ("i", "s", ("a",), 200, 100, 90, "j", "d", "c", "l")
    assert judge({**members, "aud": ["b", "a", "b"]}, "i", "a", 100, 0, 60)[2] == ("b", "a", "b")
    bare = {"iss": "i", "sub": "s", "aud": ["a"], "exp": 200}
    assert judge(bare, "i", "a", 100, 0, 60) == ("i", "s", ("a",), 200, *[None] * 6)
    for name in ("iat", "nbf", "jti", "sid", "scope", "client_id"):
        assert judge({**bare, name: None}, "i", "a", 100, 0, 60) == _core.CLAIMS_MALFORMED, name


@both
def test_a_fraction_is_rounded_to_the_stricter_side_and_comes_back_as_an_int(judge: Judge) -> None:
    for value, low, high in ((100.5, 100, 101), (100.0, 100, 100), (99.000001, 99, 100), (149.999, 149, 150)):
        judged = judge({**GOOD, "exp": value, "iat": value, "nbf": value}, "i", "a", 98, 0, 60)
        assert judged[3:6] == (low, low, high)
        assert {type(date) for date in judged[3:6]} == {int}
    judged = judge({**GOOD, "iat": -0.0, "nbf": 5e-324}, "i", "a", 100, 0, 60)
    assert [repr(date) for date in judged[4:6]] == ["0", "1"]
    assert judge({**GOOD, "exp": 100.999}, "i", "a", 100, 0, 60) == EXPIRED
    assert judge({**GOOD, "nbf": 160.001}, "i", "a", 100, 0, 60) == NOT_YET
    assert judge({**GOOD, "iat": 160.001}, "i", "a", 100, 0, 60) == FUTURE


# ------------------------------------------------------------------ what is refused


@both
def test_the_first_of_several_reasons_is_given(judge: Judge) -> None:
    worse: list[tuple[dict[str, Any], int]] = [
        ({"iat": 161}, FUTURE),
        ({"nbf": 161}, NOT_YET),
        ({"exp": 100}, EXPIRED),
        ({"aud": "b"}, AUDIENCE),
        ({"iss": "j"}, ISSUER),
    ]
    malformed: list[dict[str, Any]] = [{"sub": ""}, {"exp": "200"}, {"jti": 5}, {"nbf": True}, {"client_id": []}]
    members = dict(GOOD)
    for change, code in worse:
        members.update(change)
        assert judge(members, "i", "a", 100, 0, 60) == code
        for bad in malformed:
            assert judge({**members, **bad}, "i", "a", 100, 0, 60) == MALFORMED


@both
@each("claim", ["iss", "sub", "aud", "exp"])
def test_a_claim_that_must_be_there_is_missed(judge: Judge, claim: str) -> None:
    without = {name: value for name, value in GOOD.items() if name != claim}
    for members in (without, {**without, claim: None}, {}):
        assert judge(members, "i", "a", 100, 0, 60) == MALFORMED


@both
def test_a_claim_of_another_type_is_malformed(judge: Judge) -> None:
    for name, value in itertools.product(("iss", "sub", "jti", "sid", "scope", "client_id"), NO_TEXTS):
        assert judge({**GOOD, name: value}, "i", "a", 100, 0, 60) == MALFORMED, (name, value)
    for name, value in itertools.product(("exp", "iat", "nbf"), NO_DATES):
        assert judge({**GOOD, name: value}, "i", "a", 100, 0, 60) == MALFORMED, (name, value)


@both
@each(
    ("aud", "answer"),
    [
        *(("a", ("a",)), (["a"], ("a",)), (["b", "a"], ("b", "a")), (["a", "a"], ("a", "a"))),
        *(("b", AUDIENCE), ("", AUDIENCE), ("A", AUDIENCE), ("a ", AUDIENCE), ([], AUDIENCE), (["b", "aa"], AUDIENCE)),
        *((None, MALFORMED), (5, MALFORMED), (True, MALFORMED), (b"a", MALFORMED), (("a",), MALFORMED)),
        *(({"a": 1}, MALFORMED), ([["a"]], MALFORMED), (["a", 5], MALFORMED), ([None, "a"], MALFORMED)),
        *((_Text("a"), MALFORMED), (["a", _Text("b")], MALFORMED)),
    ],
)
def test_the_audience_must_be_named_alone_or_in_a_list_of_texts(judge: Judge, aud: Any, answer: Any) -> None:
    judged = judge({**GOOD, "aud": aud}, "i", "a", 100, 0, 60)
    assert (judged[2] if isinstance(judged, tuple) else judged) == answer


@both
def test_a_subject_has_1_to_255_bytes_of_utf_8_and_no_nul(judge: Judge) -> None:
    for sub in SUBJECTS:
        size = len(sub.encode("utf-8", "surrogatepass"))
        judged = judge({**GOOD, "sub": sub}, "i", "a", 100, 0, 60)
        if 1 <= size <= 255 and "\0" not in sub:
            assert judged[1] == sub
        else:
            assert judged == MALFORMED, ascii(sub)


# ------------------------------------------------------------------ times


@both
@each("leeway_s", [0, 1, 60, 10_000])
def test_a_token_ends_in_the_second_of_its_exp_and_the_leeway(judge: Judge, leeway_s: int) -> None:
    assert isinstance(judge(GOOD, "i", "a", 199 + leeway_s, leeway_s, 60), tuple)
    assert judge(GOOD, "i", "a", 200 + leeway_s, leeway_s, 60) == EXPIRED


@both
@each("skew_s", [0, 1, 60])
def test_nbf_and_iat_may_lie_ahead_by_the_skew_and_not_a_second_more(judge: Judge, skew_s: int) -> None:
    for claim, code in (("nbf", NOT_YET), ("iat", FUTURE)):
        assert isinstance(judge({**GOOD, claim: 100 + skew_s}, "i", "a", 100, 0, skew_s), tuple)
        assert judge({**GOOD, claim: 101 + skew_s}, "i", "a", 100, 0, skew_s) == code
        assert judge({**GOOD, claim: 101 + skew_s}, "i", "a", 100, 60, skew_s) == code  # leeway is for exp alone


@both
def test_the_latest_date_is_two_to_the_53_and_sums_at_the_corners_of_64_bits_do_not_wrap(judge: Judge) -> None:
    far = {**GOOD, "exp": MAX_DATE, "iat": float(MAX_DATE), "nbf": MAX_DATE}
    assert judge(far, "i", "a", 100, 0, HIGH)[3:6] == (MAX_DATE,) * 3
    assert judge(far, "i", "a", HIGH, HIGH, HIGH)[3] == MAX_DATE
    assert judge(far, "i", "a", LOW, HIGH, HIGH) == NOT_YET
    assert judge(GOOD, "i", "a", HIGH, 0, HIGH) == EXPIRED
    assert judge(GOOD, "i", "a", LOW, HIGH, 0) == FUTURE
