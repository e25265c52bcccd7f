"""Which machines an address from outside may lead to: none inside the network that this one stands in.

Manifests and job files come from other people, and this machine can reach what they cannot: its own services,
its neighbours, and the cloud's metadata service, which gives out credentials. So ``http://`` and ``https://``
addresses that lead to private, loopback, link-local, multicast or reserved addresses are refused, unless
``$DEEPLIIF_RAY_PRIVATE_NETWORKS`` names the network. What counts is the address a socket connects to, at
that moment: whatever a name resolves to, and wherever an answer redirects to.
"""

import http.client
import os
import socket
import urllib.error
import urllib.request
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deepliif_ray.errors import AddressRefusedError, ConfigError

if TYPE_CHECKING:
    import aiohttp

NETWORKS_VARIABLE = "DEEPLIIF_RAY_PRIVATE_NETWORKS"
"""Networks beside the internet that web addresses may lead to: ``10.20.0.0/16,127.0.0.1``."""
_NAT64 = IPv6Network("64:ff9b::/96")
_INSIDE_TOO = (
    IPv6Network("64:ff9b:1::/48"),  # translated to whatever its operator says
    IPv4Network("192.0.0.0/24"),  # of protocols; a cloud answers there
    IPv4Network("168.63.129.16"),  # of no network, but a cloud's own service on every machine of it
)


def allowed_networks() -> list[IPv4Network | IPv6Network]:
    """Return the networks of $DEEPLIIF_RAY_PRIVATE_NETWORKS.

    Raises
    ------
    ConfigError
        It does not name networks.
    """
    text = os.environ.get(NETWORKS_VARIABLE, "")
    try:
        return [ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"${NETWORKS_VARIABLE}: {error}; give networks such as 10.20.0.0/16") from error


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, if it is one of the kinds that do."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1]) or address


def check_address(text: str) -> None:
    """Refuse an address that is not one of the internet's, or of a network that is allowed.

    Raises
    ------
    AddressRefusedError
        It may not be connected to.
    """
    address = ip_address(text)
    meant = _meant(address)
    if any(one in network for one in (address, meant) for network in allowed_networks()):
        return
    compatible = isinstance(address, IPv6Address) and address.packed[:12] == bytes(12)
    inside = getattr(meant, "is_site_local", False) or any(meant in network for network in _INSIDE_TOO)
    if not meant.is_global or meant.is_multicast or meant.is_reserved or inside or compatible:
        raise AddressRefusedError(
            f"{text} is an address inside a network (private, loopback, link-local or reserved), and is not "
            f"connected to; if it is meant to be, name its network in ${NETWORKS_VARIABLE}"
        )


def check_url(url: str) -> None:
    """Refuse a web address whose host is, or is now the name of, an address that may not be connected to.

    This is for the message; what is connected to is checked again when it is.

    Raises
    ------
    AddressRefusedError
        It leads to such an address.
    """
    try:
        host = urlsplit(url).hostname or ""
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # no such host: connecting will tell
        return
    for *_, place in found:
        try:
            check_address(str(place[0]))
        except AddressRefusedError as error:
            raise AddressRefusedError(f"{host}: {error}") from None


def _checked_socket(info: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address of `socket.getaddrinfo`, which is checked first."""
    family, kind, protocol, _, place = info
    check_address(str(place[0]))
    return socket.socket(family, kind, protocol)


async def web_client(**options: Any) -> "aiohttp.ClientSession":
    """Return a session that connects to no address that is refused, redirects included; for fsspec."""
    import aiohttp  # slow to import, and not there where nothing is read from the web

    # Addresses one after the other, as side by side their errors would be lost.
    connector = aiohttp.TCPConnector(socket_factory=_checked_socket, happy_eyeballs_delay=None)
    return aiohttp.ClientSession(**{"connector": connector, **options})


def _connect(place: tuple[str, int], timeout: Any, source: Any = None) -> socket.socket:
    """Do what `socket.create_connection` does, to addresses that are checked."""
    trouble = OSError(f"{place[0]}: no address")
    for info in socket.getaddrinfo(*place, type=socket.SOCK_STREAM):
        connection = _checked_socket(info)
        try:
            connection.settimeout(timeout)
            connection.connect(info[4])
        except OSError as error:
            connection.close()
            trouble = error
        else:
            return connection
    raise trouble


class _Http(http.client.HTTPConnection):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._create_connection = _connect


class _Https(http.client.HTTPSConnection):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._create_connection = _connect


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Http, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Https, req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, content: bytes, kind: str, timeout_s: float) -> None:
    """Post to a web address; only an answer that it was received is a success. Redirects are not followed.

    A proxy that the environment names is used, if its own address is allowed.

    Raises
    ------
    AddressRefusedError
        The address may not be connected to.
    urllib.error.HTTPError
        The answer is another one: ``code`` says which.
    OSError, ValueError, http.client.HTTPException
        There was no answer.
    """
    check_url(url)
    request = urllib.request.Request(url, content, {"Content-Type": kind}, method="POST")
    opener = urllib.request.build_opener(_HttpHandler, _HttpsHandler, _NoRedirect)
    with closing(opener.open(request, timeout=timeout_s)):
        pass
