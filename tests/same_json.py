"""Pairs of JSON values that are equal and unequal in comparisons of readings with the same identity."""

SAME = [
    ("1", "1.0"),
    ("100", "1e2"),
    ("0", "-0.0"),
    ("1e23", "100000000000000000000000"),
    ('{"a":1,"b":2}', '{"b":2.0,"a":1}'),
    ('"\\u00e9"', '"é"'),
    ("[]", "[]"),
]
DIFFERENT = [
    ("true", "1"),
    ("false", "0"),
    ("false", "0.0"),
    ("null", "0"),
    ("null", "false"),
    ("null", '""'),
    ('"1"', "1"),
    ('"\\u00e9"', '"e\\u0301"'),
    ("[1,2]", "[2,1]"),
    ("[1]", "[1,null]"),
    ("[]", "{}"),
    ("[[]]", "[{}]"),
    ('{"a":1}', '{"a":1,"b":null}'),
    ("0.1", "0.10000000000000002"),
    ("9007199254740992.0", "9007199254740993"),
    ("1152921504606846976", "1152921504606846976.0"),
]
"""The last: a number with a fraction or exponent is kept with the digits that tell it from other floats, no more."""
