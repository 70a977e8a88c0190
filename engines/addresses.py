"""IP addresses and proxies: which hosts are public, which are local, and the way to each.

The proxy of a URL is the one that the environment names (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` …).
Machines of one's own network are never reached through it.
"""

import ipaddress
import socket
from typing import Any
from urllib.parse import unquote

from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from engines import TransientError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def networks(*texts: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text) for text in texts]


# The IPv6 addresses that are given to hosts of the internet. All others are local, multicast,
# translated (NAT64, IPv4-compatible) or not in use.
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Not for hosts of the internet either, though `is_global` of some Python versions says so.
SPECIAL = networks(
    "192.0.0.0/24",  # IETF protocol assignments
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT relays
    "192.88.99.0/24",  # 6to4 relays
    "192.175.48.0/24",  # AS112
    "2001::/23",  # Teredo, benchmarking, ORCHID and other protocols
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, which contains an IPv4 address
    "2620:4f:8000::/48",  # AS112
    "3ffe::/16",  # the former 6bone
    "3fff::/20",  # documentation
)
LOCAL = networks(
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",  # shared address space, as VPNs such as Tailscale use it
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::/127",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
)
LOCAL_SUFFIXES = (".local", ".localhost", ".internal", ".home.arpa", ".lan")
PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def parse(text: str) -> Address:
    """Return an IP address; an IPv4 address that is mapped to IPv6 as the IPv4 address."""
    ip = ipaddress.ip_address(text)
    return getattr(ip, "ipv4_mapped", None) or ip


def is_public(text: str) -> bool:
    """Tell whether an IP address is one of a host in the internet."""
    ip = parse(text)
    if ip.version == 6 and ip not in GLOBAL_UNICAST:
        return False
    if ip.is_multicast or not ip.is_global:
        return False
    return not any(ip in network for network in SPECIAL)


def is_local(text: str) -> bool:
    """Tell whether an IP address is one of this machine or of a private network."""
    ip = parse(text)
    return any(ip in network for network in LOCAL)


def resolve(host: str) -> list[str]:
    """Return the IP addresses of a host, IPv4 first. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = {entry[4][0] for entry in found}
    return sorted(addresses, key=lambda address: (":" in address, address))


def is_local_host(host: str) -> bool:
    """Tell whether a host has local addresses only, or a name that only a local network knows."""
    name = host.strip("[]").rstrip(".")
    try:
        addresses = resolve(name)
    except (OSError, UnicodeError):
        return "." not in name or name.lower().endswith(LOCAL_SUFFIXES)
    return all(is_local(address) for address in addresses)


def parse_or_empty(url: str) -> Url:
    try:
        return parse_url(url)
    except LocationParseError:
        return Url()


def proxy_for(url: str) -> str:
    """Return the URL of the proxy to use for this URL; "" for none. Raises TransientError."""
    host = parse_or_empty(url).host
    if not host:
        return ""
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy or is_local_host(host):
        return ""
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    # Some desktops write it without the version.
    if proxy.startswith("socks://"):
        proxy = proxy.replace("socks", "socks5h", 1)
    parsed = parse_or_empty(proxy)
    if parsed.scheme not in PROXY_SCHEMES or not parsed.host:
        # Without the proxy's URL, which may hold a password.
        detail = "the proxy in the environment is not like http://host:port or socks5h://host:port"
        raise TransientError("engine_unavailable", detail)
    return proxy


def websocket_proxy(url: str) -> dict[str, Any]:
    """Return the proxy for this http URL as options of websocket-client.

    Raises ValueError if it cannot use the proxy, TransientError as proxy_for() does.
    """
    proxy = parse_or_empty(proxy_for(url))
    if not proxy.host:
        return {"http_no_proxy": ["*"]}
    if proxy.scheme != "http":
        raise ValueError(f"no websockets through a proxy of {proxy.scheme}")
    user, _, password = map(unquote, (proxy.auth or "").partition(":"))
    return {
        "http_proxy_host": proxy.host,
        "http_proxy_port": proxy.port or 80,
        "http_proxy_auth": (user, password) if user else None,
    }
