"""The stored form of a rejected item, from its bytes as sent; derived from the contract, not the bridge's code."""

import json


def kept_payload(payload: bytes, expect: str, in_array: bool) -> bytes:
    """A separate message and a line of a body are stored unchanged; an element of an array is encoded again.

    A conflict is a valid reading, stored in the contract's format, which is the format that the simulator sends.
    """
    return json.dumps(json.loads(payload)).encode() if in_array and expect != "conflict" else payload
