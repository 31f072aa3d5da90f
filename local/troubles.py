"""Which parts of the platform do not do their work, and why, in a few words each."""

import json
import urllib.error
from collections.abc import Iterator

from local.parts import Parts
from local.service import Service


def troubles(platform: Parts) -> list[str]:
    """One text for each part that is not well; the causes before their consequences."""
    return [*_of_servers(platform), *_of_programs(platform)]


def _of_servers(platform: Parts) -> Iterator[str]:
    if not platform.postgres.ready():
        yield "the database does not accept connections"
    if not platform.accepts_devices:
        yield "the broker does not accept connections"


def _of_programs(platform: Parts) -> Iterator[str]:
    for service in (platform.bridge, platform.api, platform.keeper):
        if (reason := _reason(service)) is not None:
            yield f"{service.process.name}: {reason}"


def _reason(service: Service) -> str | None:
    """What /readyz answers instead of 200; None if it answers that."""
    try:
        service.get("/readyz")
    except urllib.error.HTTPError as error:
        with error:
            return _detail(error.read())
    except OSError:
        return "no answer"
    return None


def _detail(problem: bytes) -> str:
    """What a problem document says (RFC 9457)."""
    try:
        return str(json.loads(problem)["detail"])
    except (ValueError, KeyError, TypeError):
        return "not ready"
