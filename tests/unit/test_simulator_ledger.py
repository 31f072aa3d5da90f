"""A ledger is read as it was written, also when its writer was killed during a write."""

import json
import zlib
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.ledger import (
    ACK,
    ANSWERED,
    ASSIGNED,
    BLOCK,
    COUNTED,
    DEVICE,
    HEADER,
    IN_ARRAY,
    MAGIC,
    PUBACK,
    RECEIPT,
    REFUSED,
    SENT,
    TRUTH,
    VIA_HTTP,
    WARNED,
    LedgerWriter,
)
from simulator.ledger_reader import ACK_BITS, CALLED_NEW, FORGOTTEN, DamagedLedger, read_ledger
from simulator.message import EXPECTATIONS, Item, expectation


def _written(path: Path, complete: bool = True) -> None:
    ledger = LedgerWriter(path, {"seed": 1})
    ledger.device("vehicle", "EV_1")
    ledger.device("meter", "METER_1")
    ledger.flush()
    assert ledger.sent(0, [Item(b"first", 0)], 0) == 0
    assert ledger.sent(1, [Item(b"second", 0), Item(b"", expectation("not_json"))], IN_ARRAY) == 1
    ledger.flush()
    assert ledger.sent(0, [Item(b"fourth", 0)], VIA_HTTP) == 3
    ledger.acknowledged(PUBACK, 0, 1)
    ledger.acknowledged(PUBACK, 1, 2)
    ledger.acknowledged(RECEIPT, 1, 2)
    ledger.acknowledged(ANSWERED, 3, 1)
    ledger.assigned(1, 1_700_000_000_000_000, 0)
    ledger.assigned(1, 1_700_000_060_000_000, None)
    ledger.truth(0, -5, 7)
    ledger.counted(1, "kwhImportRegister", 8)
    warnings = [("soc", "refused: Input should be"), ("kwhDeliveredDc", "implausible: 4,711"), ("", "truncated: a: b")]
    told = [
        {"index": index, "field": name, "reason": reason}
        for index, (name, reason) in zip((0, 0, 1), warnings, strict=True)
    ]
    assert ledger.told(RECEIPT, 2, 1, {"stored": 0, "warnings": told}) == 3
    assert ledger.told(RECEIPT, 2, 1, {"stored": 0, "warnings": told[:1]}) == 1
    ledger.close(complete)


def test_ledger_comes_back_as_it_was_written(tmp_path: Path) -> None:
    _written(tmp_path / "ledger")
    ledger = read_ledger(tmp_path / "ledger")
    assert ledger.info == {"seed": 1, "expectations": list(EXPECTATIONS)}
    assert ledger.devices == [("vehicle", "EV_1"), ("meter", "METER_1")]
    assert [list(ledger.numbers_of(device)) for device in (0, 1)] == [[0, 3], [1, 2]]
    assert [ledger.item(number) for number in range(len(ledger))] == [
        (b"first", "stored", 0, ACK_BITS[PUBACK]),
        (b"second", "stored", IN_ARRAY, ACK_BITS[PUBACK] | ACK_BITS[RECEIPT]),
        (b"", "not_json", IN_ARRAY, ACK_BITS[PUBACK] | ACK_BITS[RECEIPT]),
        (b"fourth", "stored", VIA_HTTP, ACK_BITS[ANSWERED]),
    ]
    assert ledger.assignments == [(1, 1_700_000_000_000_000, 0), (1, 1_700_000_060_000_000, None)]
    assert ledger.truth == {0: (-5, 7)}
    assert ledger.counted == {(1, "kwhImportRegister"): 8}
    assert ledger.warnings == {2: {"soc: refused", "kwhDeliveredDc: implausible"}, 3: {": truncated"}}
    assert ledger.complete
    assert ledger.torn_bytes == 0


def test_ledger_cut_anywhere_gives_the_blocks_before_the_cut(tmp_path: Path) -> None:
    _written(tmp_path / "whole", complete=False)
    whole = (tmp_path / "whole").read_bytes()
    seen = set()
    for end in range(whole.index(b"EV_1") + 32, len(whole)):
        (tmp_path / "cut").write_bytes(whole[:end])
        ledger = read_ledger(tmp_path / "cut")
        seen.add(len(ledger))
        assert len(ledger) in (0, 3)
        assert not ledger.acks[:3] or not any(ledger.acks[:3])
    assert seen == {0, 3}


def test_ledger_with_rubbish_in_its_last_block_drops_that_block(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    _written(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF
    path.write_bytes(content)
    ledger = read_ledger(path)
    assert len(ledger) == 3
    assert ledger.torn_bytes > 0


def test_ledger_broken_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    _written(path)
    path.write_bytes(path.read_bytes().replace(b"second", b"SECOND"))
    with pytest.raises(DamagedLedger):
        read_ledger(path)


@pytest.mark.parametrize("rest", [b"\0", b"\0" * 64, b"rubbish", BLOCK.pack(1, zlib.crc32(b"E")) + b"E"])
def test_ledger_with_anything_after_its_end_is_refused(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "ledger"
    _written(path)
    with path.open("ab") as file:
        file.write(rest)
    with pytest.raises(DamagedLedger, match="the end of the ledger"):
        read_ledger(path)


def test_zeros_of_a_power_failure_are_no_block(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    _written(path, complete=False)
    with path.open("ab") as file:
        file.write(b"\0" * 64)
    ledger = read_ledger(path)
    assert (len(ledger), ledger.torn_bytes) == (4, 64)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(DamagedLedger, match="is empty"):
        read_ledger(path)


HEAD = b'{"expectations": ["stored"]}'
SENT_TO_0 = SENT.pack(b"S", 0, 0, 0, 2) + b"{}"
CRAFTED = {
    "unknown record": b"?",
    "record that exceeds its block": SENT.pack(b"S", 0, 0, 0, 3) + b"{}",
    "half a record": b"S",
    "unknown expectation": SENT.pack(b"S", 0, 1, 0, 0),
    "item of an unknown device": SENT.pack(b"S", 1, 0, 0, 0),
    "acknowledgement of an unknown item": SENT_TO_0 + ACK.pack(PUBACK, 0, 2),
    "warning about an unknown item": WARNED.pack(b"W", 0, 0),
    "unknown kind": DEVICE.pack(b"D", 99, 1) + b"x",
    "device without a name": DEVICE.pack(b"D", 0, 0),
    "name that is not UTF-8": DEVICE.pack(b"D", 0, 1) + b"\xff",
    "truth of an unknown device": TRUTH.pack(b"T", 1, 0, 0),
    "register of an unknown device": COUNTED.pack(b"G", 1, 0, 0),
    "assignment of an unknown meter": ASSIGNED.pack(b"A", 1, 0, 0),
    "assignment to an unknown vehicle": ASSIGNED.pack(b"A", 0, 0, 1),
    "second header": HEADER.pack(b"H", len(HEAD)) + HEAD,
    "header that is not JSON": HEADER.pack(b"H", 1) + b"{",
    "header that is a list": HEADER.pack(b"H", 2) + b"[]",
    "header without expectations": HEADER.pack(b"H", 2) + b"{}",
    "header that is nested too deep": HEADER.pack(b"H", 99_999) + b"[" * 99_999,
}


def crafted(path: Path, records: bytes) -> Path:
    """A ledger of a header, a device and these records, in blocks whose checksums are right."""
    begin = DEVICE.pack(b"D", 0, 2) + b"EV"
    if not records.startswith(b"H") or HEAD in records:
        begin += HEADER.pack(b"H", len(HEAD)) + HEAD
    blocks = (BLOCK.pack(len(block), zlib.crc32(block)) + block for block in (begin, records))
    path.write_bytes(MAGIC + b"".join(blocks))
    return path


def test_crafted_ledger_is_read(tmp_path: Path) -> None:
    assert read_ledger(crafted(tmp_path / "ledger", SENT_TO_0)).item(0).payload == b"{}"


@pytest.mark.parametrize("name", CRAFTED)
def test_wrong_content_in_a_block_with_a_right_checksum_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DamagedLedger):
        read_ledger(crafted(tmp_path / "ledger", CRAFTED[name]))


@given(st.binary(min_size=1, max_size=60), st.sampled_from(sorted(b"HDSMPRCXNWATGE")))
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: int) -> None:
    path = crafted(tmp_path_factory.getbasetemp() / "any", bytes([kind]) + content)
    try:
        ledger = read_ledger(path)
    except DamagedLedger:
        return
    assert all(ledger.item(number).expect == "stored" for number in range(len(ledger)))


@pytest.mark.parametrize("content", [b"", b"something else", b"fleet-ledger 2\n"])
def test_file_that_is_no_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger").write_bytes(content)
    with pytest.raises(DamagedLedger):
        read_ledger(tmp_path / "ledger")


def test_ledger_never_overwrites_another(tmp_path: Path) -> None:
    _written(tmp_path / "ledger")
    with pytest.raises(FileExistsError):
        LedgerWriter(tmp_path / "ledger", {})


def test_fsynced_ledger_reads_the_same(tmp_path: Path) -> None:
    ledger = LedgerWriter(tmp_path / "ledger", {"a": [1]}, fsync=True)
    ledger.device("meter", "M")
    ledger.sent(0, [Item(json.dumps({"x": 1}).encode(), 0)], 0)
    ledger.acknowledged(REFUSED, 0, 1)
    ledger.close(complete=True)
    assert read_ledger(tmp_path / "ledger").item(0).acks == ACK_BITS[REFUSED]


@pytest.mark.parametrize(
    ("forgotten_until", "forgotten"),
    [(-inf, []), (0.5, []), (1.0, []), (1.5, ["early"]), (2.0, ["early", "both"]), (3.0, ["early", "both", "late"])],
)
def test_puback_of_a_broker_that_forgot_it_is_no_promise(
    tmp_path: Path, forgotten_until: float, forgotten: list[str]
) -> None:
    """What was sent by then, and acknowledged by then or by a last word a moment later; a receipt remains one."""
    names = ["early", "both", "late"]
    ledger = LedgerWriter(tmp_path / "ledger", {})
    for name in names:
        ledger.device("meter", name)
    for device, sent_at in enumerate([1.0, 1.0, 2.5]):
        ledger.mark(sent_at)
        ledger.sent(device, [Item(b"", 0)], 0)
    for number, at in enumerate([1.4, 2.2, 2.6]):
        ledger.mark(at)
        ledger.acknowledged(PUBACK, number, 1)
    ledger.close(complete=False)
    read = read_ledger(tmp_path / "ledger", forgotten_until)
    assert [name for number, name in enumerate(names) if read.acks[number] == FORGOTTEN] == forgotten
    assert all(acks in (FORGOTTEN, ACK_BITS[PUBACK]) for acks in read.acks)


def test_pubacks_of_some_devices_can_be_taken_for_no_promise(tmp_path: Path) -> None:
    _written(tmp_path / "ledger")
    ledger = read_ledger(tmp_path / "ledger")
    ledger.forget(ledger.devices_of("METER"))
    assert list(ledger.acks[:3]) == [ACK_BITS[PUBACK], *[FORGOTTEN | ACK_BITS[RECEIPT]] * 2]


@pytest.mark.parametrize(("stored", "is_new"), [(2, True), (1, False), (0, False)])
def test_items_are_called_new_when_all_of_their_message_are(tmp_path: Path, stored: int, is_new: bool) -> None:
    ledger = LedgerWriter(tmp_path / "ledger", {})
    ledger.device("meter", "M")
    first = ledger.sent(0, [Item(b"{}", 0)] * 2, IN_ARRAY)
    assert ledger.told(ANSWERED, first, 2, {"stored": stored, "duplicates": 2 - stored, "rejected": []}) == 0
    ledger.close(complete=True)
    assert [bool(acks & CALLED_NEW) for acks in read_ledger(tmp_path / "ledger").acks] == [is_new] * 2
