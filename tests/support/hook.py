"""A webhook on this machine."""

from __future__ import annotations

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hook:
    """Whatever is POSTed to it is there to be taken. Its address holds a token that nobody may tell."""

    TOKEN = "of-nobodys-business"

    def __init__(self) -> None:
        self.taken: queue.Queue[dict[str, Any]] = queue.Queue()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.taken.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/alerts?token={self.TOKEN}"

    def wait(self, **wanted: Any) -> dict[str, Any]:
        """Take alerts until one has these values; queue.Empty when none comes."""
        while True:
            alert = self.taken.get(timeout=300)
            if all(alert.get(name) == value for name, value in wanted.items()):
                return alert

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
