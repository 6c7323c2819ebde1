"""Which patterns Arrow may prove: those that mean no more to RE2 than to protovalidate's engine."""

from __future__ import annotations

import pytest

from ingest_service.contracts.portable_pattern import is_portable


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "^[A-Z]?[0-9]{6}$",
        r"^\d+\.\w*\s?$",
        "^(?:a|b)*$",
        r"[^/]+",
        r"^[\d\-_]$",
        "a.b",
        r"\^\$\(",
        "x{2,3}",
        r"[\]]",
    ],
)
def test_portable(pattern: str) -> None:
    assert is_portable(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"\D", r"\W", r"\S", r"\bword\b", r"\pL", r"\P{Lu}", r"\x41", r"\Aa\z", r"\<a\>", "\\"),
        *(r"[^\d]", r"[^a\s]", "[[:alpha:]]", "[a&&b]", "[a--b]", "[a~~b]", "[]a]", "[^]a]", "[a"),
        *("(?i)a", "(?P<n>a)", "(?s).", "a{,3}"),
    ],
)
def test_not_portable(pattern: str) -> None:
    assert not is_portable(pattern)
