"""The parts of the API that need neither a clock nor a server."""

import base64
import contextlib
import dataclasses
import gzip
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.auth import ApiKey, bearer_token, id_of, is_key, new_token, token_hash
from api.body import Gunzip
from api.keys import scopes
from api.negotiation import negotiate
from api.paging import decode_device, decode_position, decode_rank, decode_time, decode_time_and_device, encode_cursor
from api.period import Period
from api.problems import Problem
from api.rate import RateLimit
from api.sight import Sight
from tests.readings import ids

NOW = datetime(2026, 2, 10, 10, 15, tzinfo=UTC)


def key(token: str = "", expires_at: datetime | None = None, revoked_at: datetime | None = None) -> ApiKey:
    return ApiKey("id", "name", token_hash(token), frozenset({"ingest"}), Sight(), expires_at, revoked_at)


def test_token_has_256_bits_and_its_id() -> None:
    tokens = [new_token() for _ in range(100)]
    assert all(id_of(token) == id_ for id_, token in tokens)
    assert len({token.split("_", 2)[2] for _, token in tokens}) == 100
    assert all(len(token.split("_", 2)[2]) == 43 for _, token in tokens)  # 43 characters of 6 bits


@pytest.mark.parametrize(
    "token", ["", "fleet", "fleet__", "fleet_abc_x", f"FLEET_{'a' * 12}_{'b' * 43}", f"fleet_{'a' * 12}_{'b' * 44}"]
)
def test_other_text_is_no_token(token: str) -> None:
    assert id_of(token) is None


def test_only_the_key_itself_is_the_key() -> None:
    token, other = new_token()[1], new_token()[1]
    assert is_key(token, key(token=token))
    assert not is_key(other, key(token=token))


def test_key_is_never_compared_byte_by_byte() -> None:
    """`==` stops at the first difference, and its duration would reveal the length of the common prefix."""

    class Untouchable(bytes):
        def __eq__(self, _other: object) -> bool:
            raise AssertionError("compared with ==")

        __hash__ = bytes.__hash__

    token = new_token()[1]
    guarded = dataclasses.replace(key(token=token), hash=Untouchable(token_hash(token)))
    assert is_key(token, guarded)
    assert not is_key(new_token()[1], guarded)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", None), ("", None), ("x", None), ("Bearer", "")],
)
def test_bearer_header(header: str, token: str | None) -> None:
    assert bearer_token(header) == token


def test_key_ends_when_it_expires_and_when_it_is_revoked() -> None:
    assert key(expires_at=NOW + timedelta(seconds=1)).refusal(NOW) is None
    assert "expired" in (key(expires_at=NOW).refusal(NOW) or "")
    assert "revoked" in (key(revoked_at=NOW, expires_at=NOW).refusal(NOW) or "")


def test_scopes_must_exist() -> None:
    assert scopes(["read", "ingest", "read"]) == ("ingest", "read")
    with pytest.raises(ValueError, match="root"):
        scopes(["root"])


def test_rate_limit_lets_the_burst_through_then_its_rate() -> None:
    limit = RateLimit(per_s=2, burst=3)
    assert [limit.wait_s("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.wait_s("b", 0.0) == 0
    assert limit.wait_s("a", 0.4) == pytest.approx(0.1)
    assert limit.wait_s("a", 0.5) == 0
    assert limit.wait_s("a", 1000.0) == 0
    assert [limit.wait_s("a", 1000.0) for _ in range(3)] == [0, 0, 0.5]


@given(ids, st.datetimes(timezones=st.just(UTC)))
def test_cursor_comes_back_as_it_was(device: str, time: datetime) -> None:
    assert decode_device(encode_cursor(device)) == device
    assert decode_time(encode_cursor(time)) == time
    assert decode_time_and_device(encode_cursor(time, device)) == (time, device)


@pytest.mark.parametrize("name", ["", "EV_1", "Depot \u00fc", '"\\"' * 50, "\U0001f50c" * 200])
def test_cursor_holds_the_longest_name_of_a_site(name: str) -> None:
    start = datetime(2026, 2, 10, 10, 15, 0, 1, tzinfo=UTC)
    end = start + timedelta(days=1)
    about = "0123456789abcdef"
    cursor = encode_cursor(start, end, name, start, about)
    assert decode_position(cursor) == (start, end, name, start, about)
    assert len(cursor) <= 1_300


@pytest.mark.parametrize("name", ["a\0b", 5, None, ["x"]])
def test_cursor_with_another_name_is_a_problem(name: object) -> None:
    start = datetime(2026, 2, 10, tzinfo=UTC)
    for parts in ((start, start + timedelta(days=1), name, start), (start, start, "x", start), ("1", "2", "x", "3")):
        with pytest.raises(Problem):
            decode_position(encode_cursor(*parts, "about"))


def test_cursor_with_half_a_character_is_a_problem() -> None:
    text = '["2026-02-10T00:00:00Z", "2026-02-11T00:00:00Z", "\\ud800", "2026-02-10T00:00:00Z", "x"]'
    with pytest.raises(Problem):
        decode_position(base64.urlsafe_b64encode(text.encode()).decode().rstrip("="))


@given(st.floats(allow_nan=False) | st.integers(), ids)
def test_cursor_holds_the_place_in_a_list_by_a_figure(figure: float, device: str) -> None:
    end = datetime(2026, 2, 11, tzinfo=UTC)
    place = (figure, -1.5, "meter", device)
    cursor = encode_cursor(end - timedelta(days=1), end, end, "coverage", *place)
    assert decode_rank(cursor) == (end - timedelta(days=1), end, end, "coverage", place)
    assert len(cursor) <= 1_200


@pytest.mark.parametrize(
    "changed",
    [
        {"start": 3}, {"end": 1}, {"at": "x"}, {"start": "x"}, {"order": 5}, {"order": "a\0"},
        {"figure": float("nan")}, {"figure": True}, {"figure": "1"}, {"severity": None}, {"kind": ["x"]}, {"id": ""},
    ],
)  # fmt: skip
def test_cursor_with_another_place_is_a_problem(changed: dict[str, object]) -> None:
    """Numbers for instants are days."""
    parts = {"start": 1, "end": 2, "at": 3, "order": "x", "figure": 1.5, "severity": 0, "kind": "meter", "id": "M"}
    assert decode_rank(_rank(parts))
    with pytest.raises(Problem):
        decode_rank(_rank(parts | changed))


def _rank(parts: dict[str, object]) -> str:
    days = {name: NOW + timedelta(days=n) for name in ("start", "end", "at") if isinstance(n := parts[name], int)}
    return encode_cursor(*(parts | days).values())


@given(st.text(max_size=40))
def test_any_other_cursor_is_a_problem(text: str) -> None:
    with pytest.raises(Problem):
        decode_time(text)


@given(st.text(max_size=60))
def test_any_accept_header_is_negotiated_or_refused(text: str) -> None:
    with contextlib.suppress(Problem):
        assert negotiate(text) in ("application/json", "text/csv")


def decompress(body: bytes, limit: int) -> bytes:
    return b"".join(Gunzip(limit).decode(body, is_last=True))


@given(st.binary(max_size=200))
def test_any_bytes_are_gzip_or_a_problem(body: bytes) -> None:
    with contextlib.suppress(Problem):
        assert len(decompress(body, 1_000)) <= 1_000


def test_elapsed_part_of_a_period() -> None:
    period = Period(NOW, NOW + timedelta(minutes=10))
    assert [period.elapsed_s(NOW + timedelta(minutes=m)) for m in (-1, 0, 5, 20)] == [0, 0, 300, 600]


@given(st.lists(st.binary(max_size=50), max_size=5), st.lists(st.integers(1, 300), max_size=20))
def test_gzip_that_arrives_in_chunks_is_that_of_the_whole(members: list[bytes], cuts: list[int]) -> None:
    body = b"".join(map(gzip.compress, members))
    edges = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    gunzip = Gunzip(1_000)
    plain = [part for a, b in pairwise(edges) for part in gunzip.decode(body[a:b], is_last=b == len(body))]
    assert b"".join(plain) == b"".join(members)


def test_gzip_of_many_members_is_refused_before_it_costs_their_square() -> None:
    member = gzip.compress(b"", 1)
    assert decompress(member * 100, 1_000) == b""
    with pytest.raises(Problem, match="more than 100 members"):
        decompress(member * 400_000, 1_000)
