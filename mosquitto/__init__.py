"""The broker's configuration, every line with its reason, and the form of its password file."""

import base64
import hashlib
import secrets

_ITERATIONS = 101  # what mosquitto_passwd writes; the passwords here are random, so there is nothing to guess


def password_line(user: str, password: str) -> str:
    """A line of Mosquitto's password file: PBKDF2-SHA512, as `mosquitto_passwd` writes it."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"{user}:$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
