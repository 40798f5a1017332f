"""The other side of an export: a real HTTP server on loopback that fails and sees things twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Answer", "Billing", "OpenMeter"]

Answer = tuple[int, str]


class Billing:
    """The other side: keeps what it accepts, by id, and answers as it is told.

    `refusals` are answered first, one a request; (0, "") takes the request and then hangs up.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.refusals: list[Answer] = []
        self.accept: Callable[[str, bytes], Answer] = lambda path, body: (204, "")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.path, headers, body))
                status, words = outer.refusals.pop(0) if outer.refusals else (None, "")
                if status is None:
                    status, words = outer.accept(self.path, body)
                elif status == 0:
                    outer.accept(self.path, body)
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", str(len(words)))
                self.end_headers()
                self.wfile.write(words.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class OpenMeter:
    """A receiver that counts an id and source once, as OpenMeter does."""

    def __init__(self, billing: Billing) -> None:
        self.seen: dict[tuple[str, str], dict[str, object]] = {}
        self.received = 0
        billing.accept = self.accept

    def accept(self, path: str, body: bytes) -> Answer:
        for one in json.loads(body):
            self.received += 1
            self.seen.setdefault((one["source"], one["id"]), one)
        return 204, ""
