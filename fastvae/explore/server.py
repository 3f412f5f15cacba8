"""The HTTP server: a page of three files and four answers, for the browser on this machine."""

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
from fastvae.explore.requests import MOST_BYTES, Refused

_PAGE = Path(__file__).with_name("page")
# Read by these names alone: no path is ever made from a request.
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/explore.js": ("explore.js", "text/javascript; charset=utf-8"),
}
# Neither of these types can be sent by a form of another site, nor by its scripts without asking first.
_JSON, _BYTES = "application/json", "application/octet-stream"
_ANSWERS = {"/encode": (_BYTES, MOST_BYTES), "/random": (_JSON, 1000), "/decode": (_JSON, 1_000_000)}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PIECE, _MOST_DISCARDED = 65536, 10 * MOST_BYTES
_logger = logging.getLogger("fastvae")


class Server(ThreadingHTTPServer):
    """Has its port from the start; answers once `explorer` is set and `serve_forever` called.

    Args:
        host: name or address of an interface.
        port: 0 for any that is free.

    Raises:
        UsageError: there is no such host.
        FastvaeError: the port cannot be had.
    """

    daemon_threads = True
    # On Windows it would let two servers share a port.
    allow_reuse_address = os.name == "posix"
    allow_reuse_port = False
    explorer: Explorer

    def __init__(self, host: str, port: int):
        try:
            self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError) as error:
            raise UsageError(f"--host {host} is no address of this machine; 127.0.0.1 is the usual one") from error
        self.local = ipaddress.ip_address(address[0]).is_loopback
        self.names = {host.lower(), "localhost", "127.0.0.1", "[::1]"}
        self.files = {path: ((_PAGE / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
        try:
            super().__init__(address[:2], _Handler)
        except OSError as error:
            raise FastvaeError(
                f"port {port} of {host} cannot be had ({error.strerror}): stop what uses it, or take another one, "
                "e.g. --port 0 for any that is free"
            ) from error

    def server_bind(self) -> None:
        """Without the base class's question for this machine's name, which may wait for a far name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """What to open in a browser on this machine."""
        host = self.server_address[0]
        if ipaddress.ip_address(host).is_unspecified:
            host = "localhost"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # one connection for all that a slider asks
    disable_nagle_algorithm = True  # or an answer's body would wait 40 ms for its header's acknowledgement
    timeout = 60
    server_version, sys_version = "fastvae", ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format, *arguments) -> None:
        """Nothing: a slider asks dozens of times a second."""

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
            _logger.exception("an answer failed")
            status, (body, kind) = 500, _json({"error": "this failed in fastvae itself; its terminal says more"})
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _get(self) -> tuple[bytes, str]:
        self._check_host()
        if self.path == "/about":
            return _json(self.server.explorer.about())
        if self.path in self.server.files:
            return self.server.files[self.path]
        raise Refused(404, "there is nothing here")

    def _post(self) -> tuple[bytes, str]:
        kind, most = _ANSWERS.get(self.path, (None, MOST_BYTES))
        body = self._body(most)
        self._check_host()
        if kind is None:
            raise Refused(404, "there is nothing here")
        if self.headers.get_content_type() != kind:
            raise Refused(415, f"{self.path} takes {kind}")
        found = getattr(self.server.explorer, self.path[1:])(body)
        return (found, "image/png") if isinstance(found, bytes) else _json(found)

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            self.close_connection = True
            raise Refused(411, "the request does not say how long it is")
        if int(length) <= most:
            return self.rfile.read(int(length))
        # An answer before the end of the request would be lost on who still sends.
        self.close_connection = True
        left = min(int(length), _MOST_DISCARDED)
        while left > 0 and (piece := self.rfile.read(min(left, _PIECE))):
            left -= len(piece)
        raise Refused(413, f"this is too large: at most {most / 1e6:g} MB are taken")

    def _check_host(self) -> None:
        """A site of somebody else whose name suddenly means this machine (DNS rebinding) comes with its own name."""
        name = self.headers.get("Host", "").lower()
        name = name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
        if self.server.local and name not in self.server.names:
            raise Refused(
                403, f"this server is for this machine alone: open http://localhost:{self.server.server_port}/"
            )


def _json(values: dict) -> tuple[bytes, str]:
    return json.dumps(values).encode(), _JSON
