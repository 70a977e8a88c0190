"""Which addresses are public, and which way leads to a host: through a proxy or not."""

import socket
import threading

import pytest
import requests

from engines import (
    EngineError,
    NoResponse,
    PermanentError,
    TransientError,
    addresses,
    comfyui,
    remote,
)
from tests import test_remote
from tests.fake_comfyui import FakeComfyUI
from tests.fake_proxy import FakeProxy
from tests.servers import free_port, wait_until
from tests.test_remote import GOOD, says, serving

tls = test_remote.tls
trusted = test_remote.trusted
VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
NAMES = {
    "public.example.com": ["93.184.216.34"],
    "home.example.com": ["192.168.1.5"],
    "both.example.com": ["192.168.1.5", "93.184.216.34"],
    "vpn.example.com": ["198.18.0.9"],
    "docker": ["172.18.0.3"],
    "printer.local": ["169.254.7.7"],
    "metadata.example.com": ["169.254.169.254"],
    "nat64.example.com": ["64:ff9b::a9fe:a9fe"],
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No proxies, until a test names one; and a DNS with these names alone."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    look_up = socket.getaddrinfo

    def answer(host, *more, **options):
        if host in ("127.0.0.1", "::1", "localhost"):
            return look_up(host, *more, **options)
        if host in NAMES:
            return [(2, 1, 6, "", (address, 0)) for address in NAMES[host]]
        # Numbers need no DNS.
        return look_up(host, *more, **{**options, "flags": socket.AI_NUMERICHOST})

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.fixture(params=["http", "socks5h"])
def any_proxy(request, monkeypatch):
    proxy = FakeProxy(request.param)
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(monkeypatch):
    proxy = FakeProxy()
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    yield proxy
    proxy.close()


# -- Addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *["0.0.0.1", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1"],
        *["169.254.169.254", "172.16.0.1", "172.31.255.1", "192.0.0.9", "192.0.0.170", "192.0.2.1"],
        *["192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1"],
        *["198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1"],
        *["239.255.255.250", "240.0.0.1", "255.255.255.255"],
        *["::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:10.0.0.1", "::ffff:127.0.0.1"],
        *["::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::8.8.8.8"],
        *["64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"],
        *["2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1"],
        *["2002:a9fe:a9fe::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "4000::1", "5f00::1"],
        *["fc00::1", "fdff::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1"],
    ],
)
def test_address_is_not_public(address):
    assert not addresses.is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "192.0.1.1", "223.255.255.1", "::ffff:8.8.8.8", "2606:4700::1111"],
)
def test_address_is_public(address):
    assert addresses.is_public(address)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        *[(host, True) for host in ("localhost", "127.0.0.1", "[::1]", "127.1", "2130706433")],
        *[(host, True) for host in ("0x7f.1", "10.0.0.1", "192.168.1.9", "172.16.0.1", "0.0.0.0")],
        *[(host, True) for host in ("100.101.102.103", "[fe80::1]", "[fd00::1]", "169.254.1.1")],
        *[(host, True) for host in ("[::ffff:10.0.0.1]", "home.example.com", "docker")],
        *[(host, True) for host in ("printer.local", "unknown.local", "gpu-box", "gpu-box.")],
        *[(host, True) for host in ("x.localhost", "comfy.internal", "nas.lan", "GPU.LOCAL")],
        *[(host, False) for host in ("8.8.8.8", "[2606:4700::1111]", "public.example.com")],
        *[(host, False) for host in ("both.example.com", "vpn.example.com", "134744072")],
        *[(host, False) for host in ("unknown.example.com", "172.32.0.1", "192.169.0.1")],
    ],
)
def test_local_hosts_are_known(host, is_local):
    assert addresses.is_local_host(host) == is_local


# -- Which proxy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "url", "is_used"),
    [
        ("HTTP_PROXY", "http://public.example.com/", True),
        ("http_proxy", "http://public.example.com/", True),
        ("HTTPS_PROXY", "https://public.example.com/", True),
        ("https_proxy", "https://public.example.com/", True),
        ("ALL_PROXY", "https://public.example.com/", True),
        ("all_proxy", "http://public.example.com:8080/", True),
        ("HTTPS_PROXY", "http://public.example.com/", False),
        ("ALL_PROXY", "http://127.0.0.1:8188/", False),
        ("all_proxy", "http://[::1]:8188/", False),
        ("HTTPS_PROXY", "https://home.example.com/", False),
        ("HTTP_PROXY", "http://docker:7860/", False),
        ("HTTP_PROXY", "http://gpu-box/", False),
        ("HTTP_PROXY", "http://[", False),
    ],
)
def test_proxy_is_for_public_hosts(monkeypatch, variable, url, is_used):
    monkeypatch.setenv(variable, "http://proxy.example.com:3128")

    assert addresses.proxy_for(url) == ("http://proxy.example.com:3128" if is_used else "")


@pytest.mark.parametrize("listed", ["public.example.com", ".example.com", "example.com", "*"])
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_is_respected(monkeypatch, listed, variable):
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example.com:3128")
    monkeypatch.setenv(variable, listed)

    assert addresses.proxy_for("https://public.example.com/") == ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("proxy.example.com:3128", "http://proxy.example.com:3128"),
        ("127.0.0.1:7890", "http://127.0.0.1:7890"),
        ("socks://127.0.0.1:1080", "socks5h://127.0.0.1:1080"),
        ("socks5://127.0.0.1:1080", "socks5://127.0.0.1:1080"),
    ],
)
def test_proxy_may_be_written_in_other_ways(monkeypatch, written, meant):
    monkeypatch.setenv("ALL_PROXY", written)

    assert addresses.proxy_for("https://public.example.com/") == meant


@pytest.mark.parametrize(
    "proxy", ["ftp://user:pa55@h:1", "http://", "http://user:pa55@h:port", "http://[", "://h"]
)
def test_proxy_that_cannot_be_meant_is_said_to_be_wrong(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)

    with pytest.raises(EngineError) as caught:
        remote.Client("https://public.example.com").send("GET", "/")

    assert type(caught.value) is TransientError
    assert "the proxy in the environment is not like" in str(caught.value)
    assert "pa55" not in str(caught.value)


# -- What goes through it -----------------------------------------------------------------------


def test_public_host_is_asked_through_the_proxy(proxy):
    response = remote.Client("http://public.example.com").send("GET", "/x")

    assert response.body == b"{}"
    assert proxy.asked == ["http://public.example.com/x"]


def test_public_host_is_asked_through_a_socks_proxy(monkeypatch):
    proxy = FakeProxy("socks5h")
    monkeypatch.setenv("ALL_PROXY", proxy.url)

    with serving(says(GOOD)) as url:
        port = url.rpartition(":")[2]
        response = remote.Client(f"http://public.example.com:{port}").send("GET", "/x")

    assert response.body == b"{}"
    assert proxy.asked == [f"public.example.com:{port}"]


def test_missing_package_for_socks_is_named(monkeypatch):
    def missing(*words, **options):
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setenv("ALL_PROXY", "socks5h://user:pa55@127.0.0.1:1")
    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", missing)

    with pytest.raises(EngineError) as caught:
        remote.Client("https://public.example.com").send("GET", "/")

    assert str(caught.value) == "engine_unavailable: a SOCKS proxy needs the package PySocks"


def test_local_host_is_asked_directly(any_proxy):
    with serving(says(GOOD)) as url:
        assert remote.Client(url).send("GET", "/").body == b"{}"

    assert any_proxy.asked == []


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_proxy_that_is_away_is_transient(monkeypatch, scheme):
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://user:pa55@127.0.0.1:{free_port()}")

    with pytest.raises(EngineError) as caught:
        remote.Client("https://public.example.com").send("GET", "/")

    assert type(caught.value) is TransientError
    assert "pa55" not in str(caught.value)


def test_proxy_that_refuses_is_transient(monkeypatch):
    proxy = FakeProxy(refuses=True)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)

    with pytest.raises(EngineError) as caught:
        remote.Client("https://public.example.com").send("GET", "/")

    assert type(caught.value) is TransientError


def test_answer_of_a_proxy_that_breaks_off_leaves_the_outcome_open(proxy):
    proxy.answer = b""

    with pytest.raises(NoResponse):
        remote.Client("http://public.example.com").send("POST", "/")


def test_answer_that_breaks_off_behind_a_proxy_leaves_the_outcome_open(
    any_proxy, trusted, monkeypatch
):
    heads = []
    monkeypatch.setattr(addresses, "is_local_host", lambda host: False)

    with serving(says(), trusted, heads) as url, pytest.raises(NoResponse):
        remote.Client(url).send("POST", "/")

    assert len(any_proxy.asked) == len(heads) == 1


def test_close_breaks_off_a_request_through_a_proxy(monkeypatch):
    reached, left, ended = (threading.Event() for _ in range(3))

    def hang(connection):
        reached.set()
        connection.recv(100)
        left.set()

    with serving(hang) as url:
        monkeypatch.setenv("ALL_PROXY", url)
        client = remote.Client("http://public.example.com")
        test_remote.in_thread(lambda: client.send("GET", "/", 60), ended)
        assert reached.wait(10)

        client.close()

        assert left.wait(10) and ended.wait(10)


# -- Addresses are checked, also behind a proxy -------------------------------------------------


def fetch(url: str):
    return remote.Client(url, is_allowed_address=addresses.is_public).send("GET", "/1.png")


@pytest.mark.parametrize(
    "host",
    [
        "metadata.example.com",
        "nat64.example.com",
        "both.example.com",
        "vpn.example.com",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ],
)
def test_name_of_a_private_address_is_not_asked_of_a_proxy(any_proxy, monkeypatch, host):
    # As if a way through the proxy had been found for it.
    monkeypatch.setattr(addresses, "is_local_host", lambda host: False)

    with pytest.raises(PermanentError, match="an address that is not allowed"):
        fetch(f"https://{host}")

    assert any_proxy.asked == []


def test_name_that_does_not_resolve_is_not_asked_of_a_proxy(any_proxy):
    with pytest.raises(TransientError, match="a name that does not resolve here") as caught:
        fetch("https://unknown.example.com")

    assert not isinstance(caught.value, NoResponse)
    assert any_proxy.asked == []


def test_proxy_is_asked_for_the_address_that_was_checked(any_proxy, trusted, monkeypatch):
    heads = []
    monkeypatch.setattr(addresses, "resolve", lambda host: ["93.184.216.34"])

    with serving(says(GOOD), trusted, heads) as url:
        response = fetch(url)

    port = url.rpartition(":")[2]
    assert response.body == b"{}"
    assert any_proxy.asked == [f"93.184.216.34:{port}"]
    assert f"Host: localhost:{port}\r\n".encode() in heads[0]


def test_certificate_behind_a_proxy_must_be_that_of_the_name(any_proxy, trusted):
    heads = []

    with serving(says(GOOD), trusted, heads) as url:
        port = url.rpartition(":")[2]
        with pytest.raises(TransientError):
            fetch(f"https://public.example.com:{port}")

    assert any_proxy.asked == [f"93.184.216.34:{port}"]
    assert heads == []


def test_checked_host_is_not_asked_of_a_proxy_without_tls(proxy):
    with pytest.raises(PermanentError, match="no TLS"):
        fetch("http://public.example.com")

    assert proxy.asked == []


# -- Websockets ---------------------------------------------------------------------------------


@pytest.fixture
def comfy():
    server = FakeComfyUI()
    yield server
    server.close()


def listen(base_url: str) -> comfyui.Listener:
    listener = comfyui.Listener(remote.Client(base_url), "/ws?clientId=x", lambda text: None)
    listener.start()
    assert listener.connect_finished.wait(10)
    return listener


def test_websocket_of_a_local_host_goes_directly(any_proxy, comfy):
    listener = listen(comfy.url)

    assert listener.is_connected
    assert any_proxy.asked == []
    listener.close()


def test_websocket_of_a_public_host_goes_through_the_proxy(proxy, comfy):
    port = comfy.url.rpartition(":")[2]

    listener = listen(f"http://public.example.com:{port}")

    assert listener.is_connected
    assert proxy.asked == [f"public.example.com:{port}"]
    listener.close()


@pytest.mark.parametrize("proxy", ["socks5h://127.0.0.1:{}", "https://127.0.0.1:{}", "ftp://x:{}"])
def test_websocket_that_the_proxy_cannot_carry_leaves_polling(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy.format(free_port()))

    listener = listen("http://public.example.com")

    assert not listener.is_connected
    assert wait_until(lambda: not listener.is_alive())


def test_proxy_of_websockets_may_have_a_password(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://us%40er:p%3Ass@proxy.example.com:3128")

    assert addresses.websocket_proxy("http://public.example.com") == {
        "http_proxy_host": "proxy.example.com",
        "http_proxy_port": 3128,
        "http_proxy_auth": ("us@er", "p:ss"),
    }
