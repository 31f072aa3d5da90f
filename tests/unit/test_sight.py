"""What a key sees, without the database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.keys import Grant
from api.sight import Sight, is_device_pattern
from bridge.contract import KIND_OF
from tests.readings import ids

kinds = st.sampled_from(list(KIND_OF))
close_ids = st.text("Aa0_-z", min_size=1, max_size=3)


@pytest.mark.parametrize(
    ("pattern", "kind", "device", "allowed"),
    [
        ("EV_1", "vehicle", "EV_1", True),
        ("EV_1", "meter", "EV_1", True),
        ("vehicle:EV_1", "meter", "EV_1", False),
        ("vehicle:EV_1", "vehicle", "EV_1", True),
        ("EV_1", "vehicle", "EV_12", False),
        ("EV_*", "vehicle", "EV_12", True),
        ("EV_*", "vehicle", "EX_12", False),
        ("meter:M*", "meter", "M", True),
    ],
)
def test_device_pattern(pattern: str, kind: str, device: str, allowed: bool) -> None:
    assert is_device_pattern(pattern)
    assert Sight((pattern,)).names(kind, device) is allowed


@pytest.mark.parametrize("text", ["", "*", "a*b", "a/b", "car:EV_1", "vehicle:", "EV_1\n", "x" * 65])
def test_other_text_is_no_device_pattern(text: str) -> None:
    assert not is_device_pattern(text)
    with pytest.raises(ValueError, match="device"):
        Grant(("ingest",), (text,))


@given(kinds, ids | close_ids, st.lists(st.tuples(st.sampled_from(["", *KIND_OF]), close_ids, st.booleans())))
def test_ranges_of_ids_are_what_the_patterns_name(kind: str, device: str, drawn: list[tuple[str, str, bool]]) -> None:
    """The database compares ids in the order of bytes, as Python compares ASCII."""
    patterns = [f"{own}:{name}" if own else name for own, name, _ in drawn]
    sight = Sight(tuple(p + "*" * is_prefix for p, (_, _, is_prefix) in zip(patterns, drawn, strict=True)))
    ranges = zip(*sight.arguments[:3], strict=True)
    is_within = any(own == kind and least <= device <= most for own, least, most in ranges)
    assert sight.names(kind, device) is is_within


def test_limits_add_up_and_none_is_everything() -> None:
    unlimited, both = Sight(), Sight(("EV_1",), ("North",))
    assert not unlimited.is_limited
    assert unlimited.sees("meter", "M", None)
    assert unlimited.sees_site("South")
    assert unlimited.arguments == ()
    assert [both.sees("vehicle", "EV_1", site) for site in ("North", "South", None)] == [True] * 3
    assert [both.sees("vehicle", "EV_2", site) for site in ("North", "South", None)] == [True, False, False]
    assert [both.sees_site(site) for site in ("North", "South")] == [True, False]


@pytest.mark.parametrize("sight", [Sight(()), Sight(sites=()), Sight((), ())])
def test_limit_to_nothing_is_a_limit(sight: Sight) -> None:
    assert sight.is_limited
    assert not sight.sees("vehicle", "EV_1", "North")
    assert not sight.sees_site("North")


@pytest.mark.parametrize(
    "limits", [{"devices": ()}, {"sites": ()}, {"sites": ("",)}, {"sites": ("a\nb",)}, {"sites": ("\ud800",)}]
)
def test_grant_with_limits_that_make_no_sense_is_refused(limits: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="site"):
        Grant(("read",), **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("scopes", [("admin",), ("assign",), ("read", "assign")])
def test_limited_key_cannot_have_scopes_with_effects_beyond_a_device(scopes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="only have the scopes ingest and read"):
        Grant(scopes, sites=("North",))  # type: ignore[arg-type]
    Grant(("ingest", "read"), ("EV_1",), sites=("North",))
