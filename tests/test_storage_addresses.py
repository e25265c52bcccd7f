"""Web addresses lead to the internet or to networks that are allowed, however they are written."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deepliif_ray import storage
from deepliif_ray.errors import AddressRefusedError, ConfigError, DeepliifRayError, StorageError
from deepliif_ray.storage import addresses, client

ALLOWED = "127.0.0.2"
CONTENT = b"0123456789"


@pytest.fixture
def server():
    """Servers on two loopback addresses, the first of which is allowed, and what each was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to?"))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(CONTENT)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    servers = []
    for address in (ALLOWED, "127.0.0.1"):
        try:
            one = ThreadingHTTPServer((address, 0), Handler)
        except OSError:
            pytest.skip("this system has one loopback address")
        one.asked = []
        one.url = f"http://{address}:{one.server_port}"
        threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(one)
    yield servers
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.fixture(autouse=True)
def _networks(monkeypatch):
    monkeypatch.setenv(addresses.NETWORKS_VARIABLE, f"{ALLOWED}, 10.20.0.0/16")


INSIDE = [
    "127.0.0.1", "127.255.0.1", "10.0.0.1", "10.21.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "0.0.0.0", "100.64.0.1", "192.0.0.192", "168.63.129.16", "198.18.0.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254",
    "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "2001:0:0:0:0:0:80ff:fffe",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_a_network(address):
    with pytest.raises(AddressRefusedError, match=addresses.NETWORKS_VARIABLE):
        addresses.check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "2606:2800:21f:cb07::1",
        "64:ff9b::5db8:d70e",
        ALLOWED,
        "10.20.3.4",
        "::ffff:10.20.3.4",
    ],
)
def test_addresses_of_the_internet_and_of_allowed_networks(address):
    addresses.check_address(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
    ],
)
def test_hosts_however_written(host, server):
    url = f"http://{host}:{server[1].server_port}/a.svs"
    for read in (storage.read_bytes, storage.slide_files, storage.size, storage.exists):
        with pytest.raises(AddressRefusedError, match="inside a network"):
            read(url)
    assert server[1].asked == []


def test_what_is_allowed_is_read(server):
    assert storage.read_bytes(f"{server[0].url}/a.svs") == CONTENT
    assert storage.size(f"{server[0].url}/a.svs") == len(CONTENT)
    assert storage.read_bytes(f"{server[0].url}/to?{server[0].url}/b") == CONTENT


@pytest.mark.parametrize("read", [storage.read_bytes, storage.slide_files, storage.size, storage.exists])
def test_redirects_lead_nowhere_else(server, read):
    with pytest.raises(AddressRefusedError, match=r"127\.0\.0\.1 is an address inside"):
        read(f"{server[0].url}/to?{server[1].url}/secret")
    assert server[0].asked
    assert server[1].asked == []


def test_a_name_that_resolves_to_another_address_when_connected_to(server, monkeypatch):
    kept, asked = socket.getaddrinfo, []

    def rebinding(host, port, *args, **options):
        if host != "rebinding.example":
            return kept(host, port, *args, **options)
        asked.append(host)
        return kept("93.184.215.14" if len(asked) == 1 else "127.0.0.1", port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(AddressRefusedError):
        storage.read_bytes(f"http://rebinding.example:{server[1].server_port}/a")
    asked.clear()
    with pytest.raises(AddressRefusedError):
        storage.post(f"http://rebinding.example:{server[1].server_port}/a", b"", "text/plain", 5)
    assert len(asked) == 2
    assert server[1].asked == []


def test_networks_that_are_none(monkeypatch):
    monkeypatch.setenv(addresses.NETWORKS_VARIABLE, "10.0.0.0/33")
    with pytest.raises(ConfigError, match=addresses.NETWORKS_VARIABLE):
        storage.read_bytes("http://127.0.0.1/a")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/a.svs", "sftp://host/a.svs", "ssh://host/a", "smb://host/a", "github://owner:repo@main/a",
        "git://a", "webhdfs://host/a", "hdfs://host/a", "jupyter://host/a", "dask://a", "local:///etc/passwd",
        "dir::file:///etc", "zip://a::http://127.0.0.1/a.zip", "zip::http://127.0.0.1/a.zip", "reference://a",
        "simplecache::http://127.0.0.1/a", "filecache://a", "blockcache://a", "libarchive://a", "tar://a",
        "data:text/plain,a://b", "generic://a", "async_wrapper://a", "hf://a", "arrow_hdfs://a", "LOCAL:///etc/passwd",
    ],
)  # fmt: skip
def test_other_kinds_of_urls_are_refused(url):
    with pytest.raises(DeepliifRayError, match=r"not among the kinds of URLs|hold no credentials"):
        storage.read_bytes(url)


def test_the_operator_may_allow_another_kind(tmp_path, monkeypatch):
    options = tmp_path / "options.yaml"
    options.write_text("ftp: {host: 127.0.0.1}\nnothing: {}\n")
    monkeypatch.setenv(storage.OPTIONS_VARIABLE, str(options))
    assert not client.PROTOCOLS & {"ftp", "nothing"}
    with pytest.raises(StorageError, match="cannot use this kind of URL"):
        storage.read_bytes("nothing://a")
