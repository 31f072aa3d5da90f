"""Which devices a viewer watches. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from api.sight import Sight
from bridge.contract import Kind

_UNLIMITED = Sight()


@dataclass(frozen=True, slots=True)
class Filter:
    """The devices of a kind, of a site, of a list, of those that the viewer's key sees; None: all."""

    kind: Kind | None = None
    site: str | None = None
    ids: frozenset[str] | None = None
    sight: Sight = _UNLIMITED

    @property
    def is_whole(self) -> bool:
        """Whether it concerns every device, or every device of a kind."""
        return self.site is None and self.ids is None

    @property
    def is_everything(self) -> bool:
        """Whether it concerns every device."""
        return self.kind is None and self.is_whole and not self.sight.is_limited

    def depends_on(self, sites: Collection[str]) -> bool:
        """Whether a device is no longer watched when it leaves one of these sites."""
        own = {*(self.sight.sites or ()), self.site}
        return not own.isdisjoint(sites)

    def has(self, kind: Kind, id_: str, site: str | None) -> bool:
        """Whether a device that is declared at this site is watched."""
        return (
            (self.kind is None or kind is self.kind)
            and (self.site is None or site == self.site)
            and (self.ids is None or id_ in self.ids)
            and self.sight.sees(kind.name, id_, site)
        )
