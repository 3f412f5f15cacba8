"""The HTTP server: a page of three files and four endpoints, for a browser on this machine."""

import errno
import ipaddress
import json
import logging
import os
import socket
import socketserver
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fastvae.errors import FastvaeError, UsageError
from fastvae.explore.explorer import Explorer
from fastvae.explore.requests import MAX_BYTES, Refused

_PAGE = Path(__file__).with_name("page")
# Only these names are read: no path is made from a request.
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/explore.js": ("explore.js", "text/javascript; charset=utf-8"),
}
# Another site's forms cannot send these types, nor can its scripts without a CORS preflight.
_JSON, _BYTES = "application/json", "application/octet-stream"
_ENDPOINTS = {"/encode": (_BYTES, MAX_BYTES), "/random": (_JSON, 1000), "/decode": (_JSON, 1_000_000)}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PIECE, _MAX_DISCARDED = 65536, 10 * MAX_BYTES
_logger = logging.getLogger("fastvae")


class Server(ThreadingHTTPServer):
    """Binds its port at once; answers after `explorer` is set and `serve_forever` is called.

    Args:
        host: name or address of an interface.
        port: 0 for any free port.

    Raises:
        UsageError: the host is unknown, or not this machine's.
        FastvaeError: the port is not available.
    """

    daemon_threads = True
    # On Windows this would let two servers share a port.
    allow_reuse_address = os.name == "posix"
    allow_reuse_port = False
    explorer: Explorer

    def __init__(self, host: str, port: int):
        try:
            self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError) as error:
            raise UsageError(f"--host {host} is not an address of this machine; the default is 127.0.0.1") from error
        self.local = ipaddress.ip_address(address[0]).is_loopback
        self.names = {host.lower(), "localhost", "127.0.0.1", "[::1]"}
        self.files = {path: ((_PAGE / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
        try:
            super().__init__(address[:2], _Handler)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(
                    f"--host {host} is not an address of this machine; the default is 127.0.0.1, 0.0.0.0 means all"
                ) from error
            raise FastvaeError(
                f"port {port} of {host} is not available ({error.strerror}): stop the program that uses it, or choose "
                "another one, such as --port 0 for any free port"
            ) from error

    def server_bind(self) -> None:
        """Unlike the base class, does not look up this machine's name, which may wait for a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address) -> None:
        """Ignores closed connections."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """The URL for a browser on this machine."""
        host = self.server_address[0]
        if ipaddress.ip_address(host).is_unspecified:
            host = "localhost"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # one connection for all requests of a slider
    disable_nagle_algorithm = True  # or a body would wait 40 ms for its header's acknowledgement
    timeout = 60
    server_version, sys_version = "fastvae", ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format, *arguments) -> None:
        """Logs nothing: a slider sends dozens of requests a second."""

    def _answer(self, answer) -> None:
        try:
            status, (body, kind) = 200, answer()
        except Refused as error:
            status, (body, kind) = error.status, _json({"error": str(error)})
        except FastvaeError as error:
            status, (body, kind) = 400, _json({"error": str(error)})
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            _logger.exception("a request failed")
            status, (body, kind) = 500, _json({"error": "internal error; see the terminal of fastvae explore"})
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _get(self) -> tuple[bytes, str]:
        self._check_host()
        if self.path == "/metadata":
            return _json(self.server.explorer.metadata())
        if self.path in self.server.files:
            return self.server.files[self.path]
        raise Refused(404, "not found")

    def _post(self) -> tuple[bytes, str]:
        kind, limit = _ENDPOINTS.get(self.path, (None, MAX_BYTES))
        body = self._body(limit)
        self._check_host()
        if kind is None:
            raise Refused(404, "not found")
        if self.headers.get_content_type() != kind:
            raise Refused(415, f"{self.path} expects {kind}")
        result = getattr(self.server.explorer, self.path[1:])(body)
        return (result, "image/png") if isinstance(result, bytes) else _json(result)

    def _body(self, limit: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            self.close_connection = True
            raise Refused(411, "the request has no Content-Length")
        if int(length) <= limit:
            return self.rfile.read(int(length))
        # A client that is still sending would miss an answer sent before the end of its request.
        self.close_connection = True
        left = min(int(length), _MAX_DISCARDED)
        while left > 0 and (piece := self.rfile.read(min(left, _PIECE))):
            left -= len(piece)
        raise Refused(413, f"this is too large: the limit is {limit / 1e6:g} MB")

    def _check_host(self) -> None:
        """Rejects DNS rebinding: another site whose name resolves to this machine sends its own name as Host."""
        name = self.headers.get("Host", "").lower()
        name = name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
        if self.server.local and name not in self.server.names:
            raise Refused(
                403, f"this server is only for this machine: open http://localhost:{self.server.server_port}/"
            )


def _json(values: dict) -> tuple[bytes, str]:
    return json.dumps(values).encode(), _JSON
