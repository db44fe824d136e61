"""Which addresses a webhook may connect to.

IPv6 is refused unless it is known to be in the open or in a private network; IPv4 is allowed unless
it is in a range that is neither. Private networks are where receivers of one's own are. The lists
are written out because ``ipaddress.is_global`` differs between releases of Python. An IPv6 address
that stands for an IPv4 one (mapped, NAT64, 6to4) is judged as that one.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from treadle.errors import Invalid

RESOLVE_SECONDS = 5.0

CLOSED_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "100.64.0.0/10",  # carrier-grade NAT, and metadata services of some clouds
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # the host of an Azure machine
            "169.254.0.0/16",  # link-local, and the metadata services of most clouds
            "192.0.0.0/24",  # IETF protocols
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
PRIVATE = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
)
OPEN_IPV6 = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))
CLOSED_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # IETF protocols, Teredo
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
            "fd00:ec2::/32",  # metadata services of AWS
        ),
    )
)
NAT64 = IPv6Network("64:ff9b::/96")


async def addresses_of(host: str, port: int, loopback: bool, private: bool) -> tuple[str, ...]:
    """The addresses of a host name or number, all of them checked, in the order to try.

    Raises ``Invalid`` if there is none, or if one of them must not be called. ``loopback`` lets
    addresses of this machine pass, ``private`` those of private networks.
    """
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError):
        raise Invalid("Webhook host blocked: DNS resolution failed") from None
    addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    for address in addresses:
        check_address(address, loopback, private)
    return addresses


def check_address(text: str, loopback: bool, private: bool) -> None:
    """Raise ``Invalid`` for an address that must not be called."""
    ip = _meant(ip_address(text))
    if ip.is_loopback and loopback:
        return
    if ip.is_loopback and isinstance(ip, IPv4Address):
        raise Invalid("Webhook host blocked: loopback IP range")
    if isinstance(ip, IPv4Address):
        is_open = not any(ip in network for network in CLOSED_IPV4)
    else:
        is_open = any(ip in network for network in OPEN_IPV6)
        is_open = is_open and not any(ip in network for network in CLOSED_IPV6)
    if not private and any(ip in network for network in PRIVATE):
        is_open = False
    if not is_open:
        raise Invalid("Webhook host blocked: blocked IP range")


def _meant(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
