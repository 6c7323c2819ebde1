"""A store that speaks as much of S3's protocol as Arrow's client needs, in memory: no real one runs in the tests."""

from __future__ import annotations

import email.utils
import hashlib
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape, unescape


class ObjectStore:
    """Objects by "bucket/key". read_only: nothing may be written, as with a key that may only read."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.read_only = False
        self.port = 0

    def url(self, path: str) -> str:
        """As a user would write it in TIDEMILL_LANDING."""
        return f"s3://{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def put(self, path: str, content: bytes) -> None:
        self.objects[path] = (content, time.time())

    def names(self, prefix: str) -> list[str]:
        return sorted(path.removeprefix(prefix) for path in self.objects if path.startswith(prefix))


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Runs one, for as long as it is needed."""
    store = ObjectStore()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    store: ObjectStore
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _asked(self) -> tuple[str, dict[str, str]]:
        parsed = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parsed.query, keep_blank_values=True))
        return urllib.parse.unquote(parsed.path).lstrip("/"), query

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        given = {"Content-Length": str(len(body)), **(headers or {})}
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _xml(self, text: str, status: int = 200) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
        self._answer(status, body, {"Content-Type": "application/xml"})

    def _error(self, status: int, code: str) -> None:
        self._xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            raw = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                raw += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return raw
        body = b""
        while raw:
            head, _, raw = raw.partition(b"\r\n")
            size = int(head.split(b";")[0], 16)
            if not size:
                break
            body, raw = body + raw[:size], raw[size + 2 :]
        return body

    def do_HEAD(self) -> None:
        path, _ = self._asked()
        found = self.store.objects.get(path)
        if found is None:
            bucket = path.rstrip("/")
            known = "/" not in bucket and any(each.startswith(f"{bucket}/") for each in self.store.objects)
            self._answer(200 if known else 404)
            return
        self._answer(200, found[0], _told(*found))

    def do_GET(self) -> None:
        path, query = self._asked()
        if "list-type" in query:
            self._list(path, query)
            return
        found = self.store.objects.get(path)
        if found is None:
            self._error(404, "NoSuchKey")
            return
        content, at = found
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if not asked:
            self._answer(200, content, _told(content, at))
            return
        first, _, last = asked.partition("-")
        end = min(int(last or len(content)), len(content) - 1)
        told = {**_told(content, at), "Content-Range": f"bytes {first}-{end}/{len(content)}"}
        part = content[int(first) : end + 1]
        self._answer(206, part, {**told, "Content-Length": str(len(part))})

    def _list(self, path: str, query: dict[str, str]) -> None:
        bucket = path.rstrip("/")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        entries, folders = [], set()
        for name, (content, at) in sorted(self.store.objects.items()):
            key = name.removeprefix(f"{bucket}/")
            if not name.startswith(f"{bucket}/") or not key.startswith(prefix):
                continue
            if key <= query.get("start-after", ""):
                continue
            inner, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if found:
                folders.add(prefix + inner + delimiter)
                continue
            told = _told(content, at)
            when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03}Z"
            entries.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified><ETag>{escape(told['ETag'])}</ETag>"
                f"<Size>{len(content)}</Size></Contents>"
            )
        entries += [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)]
        self._xml(
            f"<ListBucketResult><Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(entries)}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
            f"{''.join(entries)}</ListBucketResult>"
        )

    def do_PUT(self) -> None:
        path, query = self._asked()
        body = self._body()
        if self.store.read_only:
            self._error(403, "AccessDenied")
        elif self.headers.get("If-None-Match") == "*" and path in self.store.objects:
            self._error(412, "PreconditionFailed")
        elif source := self.headers.get("x-amz-copy-source"):
            content, _ = self.store.objects[urllib.parse.unquote(source).lstrip("/")]
            self.store.put(path, content)
            self._xml(f"<CopyObjectResult><ETag>{escape(_told(content, 0)['ETag'])}</ETag></CopyObjectResult>")
        elif "uploadId" in query:
            self.store.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, headers={"ETag": _told(body, 0)["ETag"]})
        else:
            self.store.put(path, body)
            self._answer(200, headers={"ETag": _told(body, 0)["ETag"]})

    def do_POST(self) -> None:
        path, query = self._asked()
        body = self._body()
        if self.store.read_only:
            self._error(403, "AccessDenied")
        elif "delete" in query:
            bucket = path.rstrip("/")
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for key in keys:
                self.store.objects.pop(f"{bucket}/{unescape(key)}", None)
            deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self._xml(f"<DeleteResult>{deleted}</DeleteResult>")
        elif "uploads" in query:
            upload = str(len(self.store.uploads))
            self.store.uploads[upload] = {}
            bucket, _, key = path.partition("/")
            self._xml(
                f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
                f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
        else:
            parts = self.store.uploads.pop(query["uploadId"])
            self.store.put(path, b"".join(parts[number] for number in sorted(parts)))
            self._xml("<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        if self.store.read_only:
            self._error(403, "AccessDenied")
            return
        self.store.objects.pop(path, None)
        self._answer(204)


def _told(content: bytes, at: float) -> dict[str, str]:
    return {
        "Content-Length": str(len(content)),
        "ETag": f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"',
        "Last-Modified": email.utils.formatdate(at, usegmt=True),
    }
