"""Reads a ledger back: payloads stay on disk (mmap), memory holds some 20 bytes an item."""

import json
import mmap
import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from bridge.reading import DeviceId, device_id
from simulator import ledger as form

ACK_BITS = {form.PUBACK: 1, form.RECEIPT: 2, form.ANSWERED: 4, form.REFUSED: 8, form.NEW: 16}
ACKNOWLEDGED = 1 | 2 | 4
TOLD = 2 | 4
"""A receipt or an answer said what became of the item."""
CALLED_NEW = 16
FORGOTTEN = 32
"""Acknowledged by a broker that was made to forget it: no promise."""
_LATE_WORD_S = 0.3
"""A PUBACK may reach its recorder so much later than the moment until which PUBACKs are no promise."""


class DamagedLedger(Exception):
    """The file is no ledger, is broken before its last block, or contains what no writer has written."""


class SentItem(NamedTuple):
    """One item as it was sent, its expectation by name, and the bits of `ACK_BITS` for its acknowledgements."""

    payload: bytes
    expect: str
    flags: int
    acks: int


@dataclass
class Ledger:
    """A ledger's content."""

    file: "mmap.mmap | bytes"
    info: dict[str, Any] = field(default_factory=dict)
    devices: list[tuple[str, DeviceId]] = field(default_factory=list)
    assignments: list[tuple[int, int, int | None]] = field(default_factory=list)
    """Meter, valid from (microseconds since 1970), vehicle."""
    truth: dict[int, tuple[int, int]] = field(default_factory=dict)
    counted: dict[tuple[int, str], int] = field(default_factory=dict)
    """True energy that a device's register proves, in micro-kWh, by device and the register's name."""
    warnings: dict[int, set[str]] = field(default_factory=dict)
    """What receipts and answers warned of, as `field: code`, by item."""
    acks: bytearray = field(default_factory=bytearray)
    forgotten_until: float = -inf
    """PUBACKs before this monotonic time are no promise."""
    complete: bool = False
    torn_bytes: int = 0
    _offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    _device_of: "array[int]" = field(default_factory=lambda: array("I"))
    _by_device: "array[int]" = field(default_factory=lambda: array("I"))
    _starts: list[int] = field(default_factory=list)
    _now: float = inf
    _sent_since: int | None = None
    """The first item that was sent after `forgotten_until`."""

    def __len__(self) -> int:
        return len(self._offsets)

    def numbers_of(self, device: int) -> Sequence[int]:
        """The numbers of this device's items, in the order in which they were sent."""
        return self._by_device[self._starts[device] : self._starts[device + 1]]

    def devices_of(self, prefix: str) -> list[int]:
        """The numbers of the devices whose ids begin so."""
        return [number for number, (_, name) in enumerate(self.devices) if name.startswith(prefix)]

    def forget(self, devices: Sequence[int]) -> None:
        """Take the PUBACKs of these devices for no promise."""
        for device in devices:
            for number in self.numbers_of(device):
                if self.acks[number] & ACK_BITS[form.PUBACK]:
                    self.acks[number] ^= ACK_BITS[form.PUBACK] | FORGOTTEN

    def item(self, number: int) -> SentItem:
        """The item of this number."""
        offset = self._offsets[number]
        _, _, expect, flags, length = form.SENT.unpack_from(self.file, offset)
        start = offset + form.SENT.size
        name = self.info["expectations"][expect]
        return SentItem(bytes(self.file[start : start + length]), name, flags, self.acks[number])

    def _index(self) -> None:
        """Sort the items by device, by counting."""
        counts = [0] * (len(self.devices) + 1)
        for device in self._device_of:
            counts[device + 1] += 1
        self._starts = list(accumulate(counts))
        free, self._by_device = list(self._starts), array("I", bytes(4 * len(self)))
        for number, device in enumerate(self._device_of):
            self._by_device[free[device]] = number
            free[device] += 1


def read_ledger(path: Path, forgotten_until: float = -inf) -> Ledger:
    """Read a ledger, also one whose writer was killed. Raises `DamagedLedger`.

    PUBACKs before the monotonic time `forgotten_until` are no promise: the broker that gave them was made to forget.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    if content[: len(form.MAGIC)] != form.MAGIC:
        raise DamagedLedger(f"{path} is no ledger of this version")
    ledger = Ledger(content, forgotten_until=forgotten_until)
    offset = len(form.MAGIC)
    while (end := _block_end(content, offset)) is not None:
        _read_block(ledger, offset + form.BLOCK.size, end)
        offset = end
    ledger.torn_bytes = len(content) - offset
    if ledger.complete and ledger.torn_bytes:
        raise DamagedLedger(f"{ledger.torn_bytes} bytes follow the end of the ledger, which is at byte {offset}")
    if not ledger.info:
        raise DamagedLedger(f"{path} ends before its header")
    if not set(_referred(ledger)) <= set(range(len(ledger.devices))):
        raise DamagedLedger(f"{path} refers to a device that it does not declare")
    ledger._index()
    return ledger


def _referred(ledger: Ledger) -> Iterator[int]:
    """The numbers of devices in all records."""
    yield from set(ledger._device_of)
    yield from ledger.truth
    yield from (device for device, _ in ledger.counted)
    for meter, _, vehicle in ledger.assignments:
        yield meter
        if vehicle is not None:
            yield vehicle


def _block_end(content: "mmap.mmap | bytes", offset: int) -> int | None:
    """Where the block ends; None when the file ends before it does. Raises `DamagedLedger` when it is broken."""
    if offset + form.BLOCK.size > len(content):
        return None
    length, checksum = form.BLOCK.unpack_from(content, offset)
    if not length:  # its checksum, 0, would be right: zeros after a power failure are no block
        if content[offset:].strip(b"\0"):
            raise DamagedLedger(f"the block at byte {offset} is empty")
        return None
    start = offset + form.BLOCK.size
    end: int = start + length
    if end > len(content):
        return None
    if zlib.crc32(content[start:end]) != checksum:
        if end == len(content):
            return None
        raise DamagedLedger(f"the block at byte {offset} is broken")
    return end


def _read_block(ledger: Ledger, offset: int, end: int) -> None:
    """Read a block whose checksum is right. Raises `DamagedLedger` when no writer has made it."""
    if ledger.complete:
        raise DamagedLedger(f"the block at byte {offset} follows the end of the ledger")
    try:
        read_to = _read_records(ledger, offset, end)
    except (IndexError, ValueError, RecursionError, struct.error) as error:
        raise DamagedLedger(f"the block at byte {offset} has invalid records: {error}") from error
    if read_to != end:
        raise DamagedLedger(f"the last record of the block at byte {offset} exceeds it")


def _read_records(ledger: Ledger, offset: int, end: int) -> int:
    """Read the records. Returns where the last one ends."""
    expectations = len(ledger.info.get("expectations", ()))
    content, forgets = ledger.file, ledger.forgotten_until > -inf
    while offset < end:
        kind = content[offset : offset + 1]
        if kind == b"S":
            _, device, expect, _, length = form.SENT.unpack_from(content, offset)
            if expect >= expectations:
                raise IndexError(f"unknown expectation {expect}")
            ledger._offsets.append(offset)
            ledger._device_of.append(device)
            ledger.acks.append(0)
            offset += form.SENT.size + length
        elif kind in ACK_BITS:
            _, first, count = form.ACK.unpack_from(content, offset)
            bit = ACK_BITS[kind]
            if forgets and kind == form.PUBACK and _is_forgotten(ledger, first):
                bit = FORGOTTEN
            for number in range(first, first + count):
                ledger.acks[number] |= bit
            offset += form.ACK.size
        else:
            offset = _read_rare(ledger, kind, offset)
            expectations = len(ledger.info.get("expectations", ()))
    return offset


def _is_forgotten(ledger: Ledger, number: int) -> bool:
    """Whether a PUBACK that comes now, for this item, is no promise."""
    was_sent_before = ledger._sent_since is None or number < ledger._sent_since
    return was_sent_before and ledger._now <= ledger.forgotten_until + _LATE_WORD_S


def _read_rare(ledger: Ledger, kind: bytes, offset: int) -> int:
    """A record of which there are few. Returns where the next one begins."""
    content = ledger.file
    if kind == b"D":
        _, which, length = form.DEVICE.unpack_from(content, offset)
        name, end = _text(ledger, offset + form.DEVICE.size, length)
        ledger.devices.append((form.KIND_NAMES[which], device_id(name)))
        return end
    if kind == b"W":
        _, number, length = form.WARNED.unpack_from(content, offset)
        warning, end = _text(ledger, offset + form.WARNED.size, length)
        if number >= len(ledger):
            raise IndexError(f"a warning about item {number}, which was not sent")
        ledger.warnings.setdefault(number, set()).add(warning)
        return end
    if kind == b"M":
        _, ledger._now = form.MARK.unpack_from(content, offset)
        if ledger._sent_since is None and ledger._now > ledger.forgotten_until:
            ledger._sent_since = len(ledger)
        return offset + form.MARK.size
    if kind == b"H":
        _, length = form.HEADER.unpack_from(content, offset)
        text, end = _text(ledger, offset + form.HEADER.size, length)
        if ledger.info:
            raise ValueError("a second header")
        ledger.info = json.loads(text)
        if not isinstance(ledger.info, dict) or not isinstance(ledger.info.get("expectations"), list):
            raise ValueError("a header without expectations")
        return end
    return _read_truth(ledger, kind, offset)


def _read_truth(ledger: Ledger, kind: bytes, offset: int) -> int:
    """A record of what is true. Returns where the next one begins."""
    content = ledger.file
    if kind == b"A":
        _, meter, valid_from_us, vehicle = form.ASSIGNED.unpack_from(content, offset)
        ledger.assignments.append((meter, valid_from_us, None if vehicle == form.NOBODY else vehicle))
        return offset + form.ASSIGNED.size
    if kind == b"T":
        _, device, delivered, consumed = form.TRUTH.unpack_from(content, offset)
        ledger.truth[device] = delivered, consumed
        return offset + form.TRUTH.size
    if kind == b"G":
        _, device, micro, length = form.COUNTED.unpack_from(content, offset)
        register, end = _text(ledger, offset + form.COUNTED.size, length)
        ledger.counted[device, register] = micro
        return end
    if kind == b"E":
        ledger.complete = True
        return offset + 1
    raise DamagedLedger(f"unknown record {kind!r} at byte {offset}")


def _text(ledger: Ledger, start: int, length: int) -> tuple[str, int]:
    """The text of so many bytes, and where it ends."""
    return bytes(ledger.file[start : start + length]).decode(), start + length
