"""The fenced code blocks of the documents, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted(
    path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name not in {"CHANGELOG.md"}
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block: the document, the line that it begins at, its language, and its text."""

    file: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.file.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(file: Path, *languages: str) -> list[Block]:
    """The document's blocks in these languages, in order; all of them when none is named."""
    text = file.read_text(encoding="utf-8")
    found = (Block(file, text[: m.start()].count("\n") + 1, m[1], m[2]) for m in _FENCE.finditer(text))
    return [block for block in found if not languages or block.language in languages]


def commands(file: Path) -> list[str]:
    """Every command line of the document's `sh` blocks; a line that ends in a backslash goes on in the next."""
    return [line for block in blocks(file, "sh") for line in _lines(block.text)]


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield line.strip()
