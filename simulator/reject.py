"""How a rejected item lies in the database, from its bytes as sent. Follows the contract, not the bridge's code."""

import json


def kept_payload(payload: bytes, expect: str, in_array: bool) -> bytes:
    """A message of its own and a line of a body are kept as they came; an element of an array is encoded again.

    A conflict is a sound reading, kept in the contract's form, which is the form that we send.
    """
    return json.dumps(json.loads(payload)).encode() if in_array and expect != "conflict" else payload
