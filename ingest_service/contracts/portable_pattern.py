"""Which regular expressions mean the same to Arrow (RE2) and to protovalidate."""

from __future__ import annotations

import re

_PERL_CLASSES = frozenset("dws")
_CLASS_OPERATORS = ("&&", "--", "~~")
_WORD_EDGES = frozenset("<>")
"""Escaped, they are literals to RE2, and the edges of a word to Rust's engine."""


def is_portable(pattern: str) -> bool:
    """Whether a match by RE2 proves a match by any engine with RE2's syntax, also one that knows more of Unicode.

    RE2's `\\d`, `\\w` and `\\s` are ASCII, a part of what they are elsewhere: a match proves a match. What excludes
    (`\\D`, `\\b`, `[^\\d]`, `\\P{…}`), flags, and nested or combined classes may be wider here than there: refused.
    """
    position, in_class, negated = 0, False, False
    while position < len(pattern):
        char, rest = pattern[position], pattern[position:]
        if char == "\\":
            if not _is_portable_escape(rest[1:2], negated=in_class and negated):
                return False
            position += 2
            continue
        if in_class:
            if char == "[" or rest.startswith(_CLASS_OPERATORS):
                return False
            in_class = char != "]"
        elif char == "[":
            negated = rest.startswith("[^")
            in_class = True
            # A bracket that closes right away is a literal to some engines, an error to others.
            if re.match(r"\[\^?\]", rest):
                return False
        elif rest.startswith("{,") or (rest.startswith("(?") and not rest.startswith("(?:")):
            return False
        position += 1
    return not in_class


def _is_portable_escape(char: str, *, negated: bool) -> bool:
    if len(char) != 1:
        return False
    if char in _PERL_CLASSES:
        return not negated
    return char.isascii() and char.isprintable() and not char.isalnum() and char != " " and char not in _WORD_EDGES
