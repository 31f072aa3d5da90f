"""Sends one notification to a webhook.

The receiver's answer is only its status: nothing of its body is read, kept or shown, and redirects are not followed. So
a webhook cannot be used to read from services that only this machine reaches.
"""

import asyncio
import ipaddress
import socket
import time
from typing import TypeAlias

import httpx

from bridge.alarms.notification import Notification, signed_headers

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The well-known prefix of NAT64 (RFC 6052)."""
_OWN_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""For NAT64 within a network (RFC 8215): which IPv4 address it stands for is known to its gateway only."""


class NotDelivered(Exception):
    """The receiver does not have the notification; the text is the reason."""


class Gone(NotDelivered):
    """The receiver wants no more notifications (410)."""


async def post(
    client: httpx.AsyncClient, url: str, secret: str, notification: Notification, *, refuse_local: bool
) -> None:
    """Deliver. Raises `NotDelivered` unless the answer is 2xx."""
    body = notification.body
    headers = signed_headers(secret, notification.id, int(time.time()), body)
    extensions = {}
    try:
        target = httpx.URL(url)
        if refuse_local:
            # The address that was checked is the one that is connected to: the name could have another one later.
            address = await _public_address(target)
            headers["host"] = target.netloc.decode("ascii")
            extensions = {"sni_hostname": target.host}
            target = target.copy_with(host=address)
        request = client.build_request("POST", target, content=body, headers=headers, extensions=extensions)
        response = await client.send(request, stream=True)
        await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}") from error
    if response.status_code == httpx.codes.GONE:
        raise Gone("the receiver answered 410")
    if not response.is_success:
        raise NotDelivered(f"the receiver answered {response.status_code}")


async def _public_address(url: httpx.URL) -> str:
    """The first address of the host. Raises `NotDelivered` unless all are public."""
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(sockaddr[0])) for _, _, _, _, sockaddr in found]
    for address in addresses:
        if not is_public(address):
            raise NotDelivered(f"{url.host} has the address {address}, which is refused (FLEET_WEBHOOK_REFUSE_LOCAL)")
    return str(addresses[0])


def is_public(address: IPAddress) -> bool:
    """Whether a packet to the address goes to the public internet, also where a gateway translates it to IPv4."""
    final = _behind_gateway(address)
    return final.is_global and not final.is_multicast and address not in _OWN_NAT64


def _behind_gateway(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 address stands for (mapped, NAT64, 6to4, Teredo); otherwise the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address
