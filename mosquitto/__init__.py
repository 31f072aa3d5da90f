"""The broker's configuration, every line with its reason, and the provisioning of its devices.

`python -m mosquitto` creates the fleet's CA and each device's credentials. The registry is the source of truth; the
broker's files (passwords, acl, crl.pem) are generated from it.
"""

import base64
import hashlib
import secrets

_ITERATIONS = 101  # the count that mosquitto_passwd uses; sufficient, because the passwords are random


def password_line(user: str, password: str) -> str:
    """A line of Mosquitto's password file."""
    return f"{user}:{password_hash(password)}\n"


def password_hash(password: str) -> str:
    """PBKDF2-SHA512 with a new salt, in the format of `mosquitto_passwd`."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
