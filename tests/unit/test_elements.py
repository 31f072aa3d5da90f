"""The elements of an array that is not valid JSON: a damaged one does not affect the others."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.formats.elements import begins_as_array, cut
from tests.readings import json_values

ANY_NUMBER = 1_000_000
BLANKS = st.sampled_from([b"", b" ", b"\n", b"\t\r\n ", b"\0"])

texts = json_values.map(json.dumps).map(str.encode)
_bad_tokens = st.sampled_from([b"nan", b"-nan", b"inf", b".5", b"50.", b"+50", b"050", b"NULL", b"'x'", b"\xff", b"\\"])
_without_structure = st.binary(min_size=1).filter(
    lambda junk: junk.strip(b" \t\r\n\0") == junk and not set(junk) & set(b'"[]{},')
)
damaged = (
    _bad_tokens
    | _without_structure
    | st.builds(lambda token: b'{"soc":' + token + b',"a":[1]}', _bad_tokens | st.just(b"50,5"))
    | st.builds(lambda text: text + b"}", texts)
    | st.builds(lambda text: b'{"a":[' + text + b"}", texts)
    | st.builds(lambda text: b'{"a":{"b":[{"c":[' + text + b"}}}", texts)
)
"""An element that no parser takes, though its quotes are in pairs and its own closing bracket is there."""


def joined(elements: list[bytes], blank: bytes = b"") -> bytes:
    return blank + b"[" + b",".join(blank + element + blank for element in elements) + b"]" + blank


@given(st.lists(json_values), BLANKS)
def test_elements_of_a_sound_array_are_its_elements(values: list[object], blank: bytes) -> None:
    texts, is_closed = cut(joined([json.dumps(value).encode() for value in values], blank), ANY_NUMBER)
    assert [json.loads(text) for text in texts] == values
    assert is_closed


@given(st.lists(texts), st.lists(texts), st.data(), BLANKS)
def test_damaged_element_leaves_the_bytes_of_every_other(
    before: list[bytes], after: list[bytes], data: st.DataObject, blank: bytes
) -> None:
    elements = [*before, data.draw(damaged), *after]
    cut_texts, is_closed = cut(joined(elements, blank), ANY_NUMBER)
    assert [text for n, text in enumerate(cut_texts) if n != len(before)] == before + after
    assert is_closed


@given(st.lists(texts, min_size=1), st.data())
def test_truncated_array_keeps_every_element_before_the_end(elements: list[bytes], data: st.DataObject) -> None:
    array = joined(elements)
    end = data.draw(st.integers(1, len(array) - 1))
    cut_texts, is_closed = cut(array[:end], ANY_NUMBER)
    whole = sum(len(joined(elements[:n])) <= end for n in range(1, len(elements)))
    assert cut_texts[:whole] == elements[:whole]
    assert len(cut_texts) <= whole + 1
    assert not is_closed


@given(st.binary() | st.text(alphabet='[]{},":\\a1 ').map(str.encode), st.integers(1, 3))
def test_any_bytes_have_at_most_one_element_more_than_asked_for(payload: bytes, most: int) -> None:
    texts, is_closed = cut(b"[" + payload, most)
    assert len(texts) <= most + 1
    assert not is_closed or b"]" in payload or len(texts) > most
    assert all(text in payload for text in texts)


@pytest.mark.parametrize(
    ("payload", "texts", "is_closed"),
    [
        (b"[]", [], True),
        (b"[", [], False),
        (b"[,]", [b""], True),
        (b"[1,]", [b"1"], True),
        (b"[1,,2]", [b"1", b"", b"2"], True),
        (b"[1", [b"1"], False),
        (b"[1,", [b"1"], False),
        (b"[1]x", [b"1", b"x"], True),
        (b"[1][2]", [b"1", b"[2]"], True),
        (b'["]",1]', [b'"]"', b"1"], True),
        (b'["\\"]",1]', [b'"\\"]"', b"1"], True),
        (b'["a,1]', [b'"a,1]'], False),
        (b"\xef\xbb\xbf[1]\0", [b"1"], True),
    ],
)
def test_cut_of(payload: bytes, texts: list[bytes], is_closed: bool) -> None:
    assert begins_as_array(payload)
    assert cut(payload, ANY_NUMBER) == (texts, is_closed)


@pytest.mark.parametrize("part", [b"[", b'"', b'\\"', b",", b"[]", b"{]", b"}"], ids=repr)
def test_hostile_array_is_cut_in_linear_time(part: bytes) -> None:
    mebibytes = 2
    payload = b"[" + part * (mebibytes * 1024 * 1024 // len(part))
    began = time.process_time()
    texts, _ = cut(payload, 10_000)
    assert time.process_time() - began < 2.5 * mebibytes, "not linear: a mebibyte takes half a second at most"
    assert len(texts) <= 10_001
