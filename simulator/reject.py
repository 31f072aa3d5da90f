"""The stored form of a rejected item, from its bytes as sent; derived from the contract, not the bridge's code."""

import json

_AS_SENT = ("conflict", "unstorable", "not_json")


def kept_payload(payload: bytes, expect: str, in_array: bool) -> bytes:
    """A separate message, a line of a body and what is not JSON are stored unchanged; an element is encoded again.

    A reading that could not be stored is kept in the contract's format, so it must have been sent in that format.
    """
    return json.dumps(json.loads(payload)).encode() if in_array and expect not in _AS_SENT else payload
