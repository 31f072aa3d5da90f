"""The ledger on disk: what was sent, and what was acknowledged in which way. Append-only.

File: the line `fleet-ledger 1`, then blocks of a length, a CRC-32 and records. A block is written in one go before
its messages go to the socket, so after a kill -9 every message that can have left is in the file; acknowledgements
that were not written any more count as none. A torn last block is what was never sent, and is left out.

Records, little-endian, by their first byte:

    H length json                                  what made this ledger; the names of the expectations
    D kind length id                               a device; numbered from 0 in order of appearance
    S device expectation flags length payload      an item, before it is sent; numbered from 0
    M seconds                                      the monotonic time of what follows, where the writer records it
    P|R|C|X first count                            items acknowledged: by PUBACK, receipt, HTTP answer; X: refused
    N first count                                  items that a receipt or answer called newly stored
    W item length text                             what a receipt or answer warned of in an item, as `field: code`
    A meter valid_from_us vehicle                  an assignment that the API has taken (vehicle 2^32-1: nobody)
    T device micro_kwh consumed_micro_kwh          simulated truth at the end, of each device: interval energies
    G device micro_kwh length name                 the same for a register: the energy that its values prove
    E                                              the end: all was sent
"""

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge.contract import KINDS
from bridge.private_file import sync_directory
from simulator.message import EXPECTATIONS, Item

MAGIC = b"fleet-ledger 1\n"
BLOCK = struct.Struct("<II")
SENT = struct.Struct("<cIBBI")
MARK = struct.Struct("<cd")
ACK = struct.Struct("<cII")
DEVICE = struct.Struct("<cBB")
ASSIGNED = struct.Struct("<cIqI")
TRUTH = struct.Struct("<cIqq")
COUNTED = struct.Struct("<cIqB")
WARNED = struct.Struct("<cIB")
HEADER = struct.Struct("<cI")
NOBODY = 2**32 - 1

VIA_HTTP, IN_ARRAY, RECEIPT_ASKED = 1, 2, 4
PUBACK, RECEIPT, ANSWERED, REFUSED, NEW = b"P", b"R", b"C", b"X", b"N"
KIND_NAMES = [kind.name for kind in KINDS]
"""A device's kind is an index into them."""


class LedgerWriter:
    """Appends to a new ledger. With `fsync` a flush reaches the disk, not only the system."""

    def __init__(self, path: Path, info: dict[str, Any], fsync: bool = False) -> None:
        self._file = path.open("xb", buffering=0)
        sync_directory(path.parent)  # the name must be as durable as what is synced under it
        self._fsync = fsync
        self._parts: list[bytes] = []
        self.items = 0
        """How many items were recorded as sent."""
        text = json.dumps({**info, "expectations": EXPECTATIONS}).encode()
        self._file.write(MAGIC)
        self._parts += (HEADER.pack(b"H", len(text)), text)

    def device(self, kind: str, name: str) -> None:
        """Declare the next device."""
        self._parts += (DEVICE.pack(b"D", KIND_NAMES.index(kind), len(name)), name.encode())

    def sent(self, device: int, items: Sequence[Item], flags: int) -> int:
        """Record items that are about to be sent. Returns the first one's number. Flush before sending."""
        first, parts = self.items, self._parts
        for payload, expect in items:
            parts.append(SENT.pack(b"S", device, expect, flags, len(payload)))
            parts.append(payload)
        self.items += len(items)
        return first

    def mark(self, monotonic_s: float) -> None:
        """Record the time of what is recorded next, for a reader that excuses what came before some moment."""
        self._parts.append(MARK.pack(b"M", monotonic_s))

    def acknowledged(self, how: bytes, first: int, count: int) -> None:
        """Record how `count` items from `first` on were acknowledged."""
        self._parts.append(ACK.pack(how, first, count))

    def told(self, how: bytes, first: int, count: int, receipt: Mapping[str, Any]) -> int:
        """Record a receipt, or an answer like it, about `count` items from `first` on. Returns how many warnings."""
        self.acknowledged(how, first, count)
        if receipt["stored"] == count:
            self.acknowledged(NEW, first, count)
        warnings: Sequence[Mapping[str, Any]] = receipt.get("warnings", ())
        for warning in warnings:
            text = f"{warning['field']}: {warning['reason'].partition(':')[0]}".encode()[:255]
            self._parts += (WARNED.pack(b"W", first + warning["index"], len(text)), text)
        return len(warnings)

    def assigned(self, meter: int, valid_from_us: int, vehicle: int | None) -> None:
        """Record an assignment that the API has confirmed."""
        self._parts.append(ASSIGNED.pack(b"A", meter, valid_from_us, NOBODY if vehicle is None else vehicle))

    def truth(self, device: int, delivered_micro: int, consumed_micro: int) -> None:
        """Record a device's true energy, and for a vehicle the AC that was taken for it, in micro-kWh."""
        self._parts.append(TRUTH.pack(b"T", device, delivered_micro, consumed_micro))

    def counted(self, device: int, register: str, micro: int) -> None:
        """Record the true energy that the values of a device's register prove, in micro-kWh."""
        name = register.encode()
        self._parts += (COUNTED.pack(b"G", device, micro, len(name)), name)

    def flush(self) -> None:
        """Hand everything recorded so far to the system as one block."""
        if not self._parts:
            return
        records = b"".join(self._parts)
        self._parts.clear()
        block = BLOCK.pack(len(records), zlib.crc32(records)) + records
        while block:
            block = block[self._file.write(block) :]
        if self._fsync:
            os.fsync(self._file.fileno())

    def close(self, complete: bool) -> None:
        """End the ledger; `complete` says that all was sent and the truth stands in it."""
        if complete:
            self._parts.append(b"E")
        self.flush()
        os.fsync(self._file.fileno())
        self._file.close()
