"""The broker's configuration, every line with its reason, and the provisioning of its devices.

`python -m mosquitto` makes the fleet's CA and each device's credentials. What is true stands in the registry; what
the broker reads (passwords, acl, crl.pem) is made from it, so a broker can never know more than the registry does.
"""

import base64
import hashlib
import secrets

_ITERATIONS = 101  # what mosquitto_passwd writes; the passwords here are random, so there is nothing to guess


def password_line(user: str, password: str) -> str:
    """A line of Mosquitto's password file."""
    return f"{user}:{password_hash(password)}\n"


def password_hash(password: str) -> str:
    """PBKDF2-SHA512 with a fresh salt, as `mosquitto_passwd` writes it."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
