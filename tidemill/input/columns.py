"""Which of a file's columns becomes which of the contract's fields.

A field is made from a column (`invoice_no=InvoiceNo`), from a template over columns (`event_id=r{source_row}`), or from
a constant (`country='France'`). A field that the map leaves out takes the column of its own name; failing that, the
one whose name differs only by case, underscores, hyphens and spaces.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import InputError

_PLACE = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a field's values come from: `parts` are taken together as text, unless there is one column alone."""

    parts: tuple[tuple[str, str], ...]
    """("column", its name) or ("text", itself)."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(value for kind, value in self.parts if kind == "column")

    @property
    def column(self) -> str | None:
        """The one column that is taken as it is; None for a template or a constant."""
        return self.parts[0][1] if len(self.parts) == 1 and self.parts[0][0] == "column" else None

    @property
    def shown(self) -> str:
        """As the user would write it."""
        if self.column is not None:
            return self.column
        text = "".join(value if kind == "text" else f"{{{value}}}" for kind, value in self.parts)
        return text if self.columns else f"'{text}'"

    def values(self, batch: pa.RecordBatch) -> pa.Array:
        """The field's values; a template with a missing part is missing."""
        if self.column is not None:
            return batch.column(self.column)
        pieces = [
            batch.column(value).cast(pa.string()) if kind == "column" else pa.scalar(value)
            for kind, value in self.parts
        ]
        if not self.columns:
            return pa.array([pieces[0].as_py()] * batch.num_rows, pa.string())
        return pc.binary_join_element_wise(*pieces, "")


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """What the user said about some fields; `resolve` finds the rest."""

    sources: dict[str, Source]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> ColumnMap:
        """A map from entries such as `invoice_no=InvoiceNo`; raises InputError for one that is none."""
        sources: dict[str, Source] = {}
        for entry in entries:
            field, equals, source = (part.strip() for part in entry.partition("="))
            if not (field and equals and source):
                raise InputError(
                    f"expected FIELD=COLUMN, FIELD='constant' or FIELD=a{{column}}b in the map, came {entry!r}"
                )
            if field in sources:
                raise InputError(f"the map says twice where field {field!r} comes from")
            sources[field] = _source(source)
        return cls(sources)

    def resolve(
        self, file: str, have: Sequence[str], fields: Sequence[str], required: Collection[str]
    ) -> dict[str, Source]:
        """The source of every field that has one.

        file: for messages; have: the file's columns; fields: the contract's; required: those that must have a source.
        Raises InputError naming what does not exist, or is missing.
        """
        for field in self.sources:
            if field not in fields:
                raise InputError(f"the contract has no field {field!r}{_hint(field, fields)} (in the map)", file)
        found: dict[str, Source] = {}
        for field in fields:
            source = self.sources.get(field) or _by_name(field, have)
            if source is not None:
                found[field] = source
        self._check_columns(file, have)
        missing = [field for field in fields if field in required and field not in found]
        if missing:
            raise InputError(
                f"{file} has no column for {', '.join(missing)}; it has {', '.join(have)}. "
                f"Say where it comes from: --map {missing[0]}=COLUMN",
                file,
            )
        return found

    def _check_columns(self, file: str, have: Sequence[str]) -> None:
        for field, source in self.sources.items():
            for column in source.columns:
                if column not in have:
                    raise InputError(
                        f"{file} has no column {column!r} (mapped to {field}){_hint(column, have)}; "
                        f"it has {', '.join(have)}",
                        file,
                    )


def _source(text: str) -> Source:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return Source((("text", text[1:-1]),))
    if "{" not in text:
        return Source((("column", text),))
    # Every other piece is what stood between braces.
    pieces = _PLACE.split(text)
    parts = tuple(("column" if index % 2 else "text", piece) for index, piece in enumerate(pieces) if piece)
    # A template of one column is its text: "{source_row}" makes a string of a number.
    return Source(parts if len(parts) > 1 else (*parts, ("text", "")))


def _by_name(field: str, have: Sequence[str]) -> Source | None:
    if field in have:
        return Source((("column", field),))
    alike = [column for column in have if _plain(column) == _plain(field)]
    return Source((("column", alike[0]),)) if len(alike) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()


def _hint(name: str, known: Sequence[str]) -> str:
    by_plain: dict[str, str] = {_plain(each): each for each in known}
    near: Callable[[str], list[str]] = lambda plain: difflib.get_close_matches(plain, by_plain, n=1)  # noqa: E731
    match = near(_plain(name))
    return f"; did you mean {by_plain[match[0]]!r}?" if match else ""
