"""Serves the dbt docs and the data docs: files of these two folders and of nothing outside of them."""

from __future__ import annotations

from pathlib import Path

from fastapi import HTTPException
from fastapi.responses import FileResponse

# Only these; a name that says nothing here is sent as bytes, and a browser saves it.
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
INDEX = "index.html"


def find_file(folder: Path, path: str) -> Path:
    """Give the file at a path below a folder, a folder's index.html for a folder; HTTPException 404 otherwise.

    Links are followed before the place is judged: one that leads out of the folder leads nowhere.
    """
    try:
        root = folder.resolve(strict=True)
        found = (root / path.lstrip("/")).resolve(strict=True)
        if found.is_dir():
            found = (found / INDEX).resolve(strict=True)
        if not found.is_relative_to(root) or not found.is_file():
            raise FileNotFoundError(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise HTTPException(404, f"There is no page {path!r} here") from error
    return found


def send_file(file: Path, policy: str) -> FileResponse:
    """Answer with a file, under a content security policy; it is asked for anew each time, as each run replaces it."""
    kind = CONTENT_TYPES.get(file.suffix.lower(), "application/octet-stream")
    return FileResponse(
        file, media_type=kind, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache, private"}
    )
