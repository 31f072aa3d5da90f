"""Sends one notification to a webhook.

The receiver's answer is only its status: nothing of its body is read, kept or shown, and redirects are not followed. So
a webhook cannot be used to read from services that only this machine reaches.
"""

import asyncio
import ipaddress
import socket
import time

import httpx

from bridge.alarms.notification import Notification, signed_headers


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
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not mapped.is_global or mapped.is_multicast:
            raise NotDelivered(f"{url.host} has the address {address}, which is refused (FLEET_WEBHOOK_REFUSE_LOCAL)")
    return str(addresses[0])
