"""Which of some devices a key sees: by its patterns, and by the device register where it is limited to sites.

The register is asked in every request, because a device may have moved. A key without sites is never looked up, nor is
a device that a pattern names.
"""

from collections.abc import Collection

from api.database import Connection, Pool, connection
from api.problems import Problem
from api.sight import Sight
from bridge.contract import KIND_OF
from bridge.reading import is_device_id

Device = tuple[str, str]
"""Kind and id."""

_AT_SITES = """
SELECT d.kind, d.id FROM unnest($1::text[], $2::text[]) AS g (kind, id) JOIN device AS d USING (kind, id)
WHERE d.site = ANY($3)
"""


async def seen(c: Connection, sight: Sight, devices: Collection[Device]) -> set[Device]:
    """Those of the devices that the key sees."""
    rest = _not_named(sight, devices)
    named = set(devices) - rest
    return named | await _at_sites(c, sight, rest) if _depends_on_sites(sight, rest) else named


async def unseen(pool: Pool, sight: Sight, devices: Collection[Device]) -> set[Device]:
    """Those of the devices that the key does not see. A connection is taken only if the register must be asked."""
    rest = _not_named(sight, devices)
    if not _depends_on_sites(sight, rest):
        return rest
    async with connection(pool) as c:
        return rest - await _at_sites(c, sight, rest)


async def refuse_unseen(pool: Pool, sight: Sight, parameter: str, kind: str, names: Collection[str]) -> None:
    """Raise 403 that names the parameter unless the key sees each of the names: devices of a kind, or sites.

    The answer is the same for what does not exist.
    """
    if not sight.is_limited:
        return
    if kind in KIND_OF:
        is_refused = bool(await unseen(pool, sight, [(kind, name) for name in names]))
    else:
        is_refused = not all(map(sight.sees_site, names))
    if is_refused:
        reason = f"is not a {kind} that the API key is limited to"
        raise Problem(403, f"{parameter}: {reason}", errors=[{"field": parameter, "reason": reason}])


def _not_named(sight: Sight, devices: Collection[Device]) -> set[Device]:
    return {device for device in devices if not sight.names(*device)}


def _depends_on_sites(sight: Sight, devices: Collection[Device]) -> bool:
    return bool(sight.sites and any(is_device_id(id_) for _, id_ in devices))


async def _at_sites(c: Connection, sight: Sight, devices: Collection[Device]) -> set[Device]:
    kinds, ids = zip(*(device for device in devices if is_device_id(device[1])), strict=True)
    return {tuple(row) for row in await c.fetch(_AT_SITES, kinds, ids, sight.sites)}
