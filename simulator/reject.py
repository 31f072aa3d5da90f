"""How a rejected item lies in the database, from its bytes as sent. Follows the contract, not the bridge's code."""

import json


def kept_payload(payload: bytes, expect: str, alone: bool) -> bytes:
    """A message of its own is kept as it came; an element of an array or a line of a body as JSON written anew.

    A conflict is a sound reading, kept in the contract's form, which is the form that we send.
    """
    if alone or expect == "conflict":
        return payload
    try:
        return json.dumps(json.loads(payload)).encode()
    except ValueError:
        return payload  # a line that is no JSON
