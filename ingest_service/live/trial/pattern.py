"""Makes text that a regular expression matches, for such patterns as contracts have: classes, repeats, alternatives."""

from __future__ import annotations

import random

# Python's own parser of regular expressions: private, but there is no other; where it fails, there is no text.
from re import _parser  # type: ignore[attr-defined]
from typing import Any

_REPEATS_MAX = 8
"""How often something is repeated at the most, beyond the least that the pattern asks for."""
_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_CATEGORIES = {"CATEGORY_DIGIT": "0123456789", "CATEGORY_WORD": _PLAIN + "_", "CATEGORY_SPACE": " "}


class PatternText:
    """Texts of one pattern. liked: characters that are taken rather than others, where the pattern lets it choose."""

    def __init__(self, pattern: str, liked: str, rng: random.Random) -> None:
        """Raises ValueError when the pattern has something that no text is made of here."""
        self._liked = frozenset(liked)
        self._rng = rng
        try:
            self._tree = _parser.parse(pattern)
        except (ArithmeticError, RecursionError, _parser.error) as error:
            raise ValueError(f"the pattern {pattern!r} is not understood: {error}") from error

    def make(self) -> str:
        """A text; it matches unless the pattern looks ahead or behind. Raises ValueError as the constructor does."""
        return self._sequence(self._tree)

    def _sequence(self, tree: Any) -> str:
        return "".join(self._part(str(code), value) for code, value in tree)

    def _part(self, code: str, value: Any) -> str:
        text = ""  # of what only says where: the pattern's ends
        match code:
            case "LITERAL":
                text = chr(value)
            case "NOT_LITERAL":
                text = self._one(set(_PLAIN) - {chr(value)})
            case "ANY":
                text = self._one(set(_PLAIN))
            case "IN":
                text = self._one(_class(value))
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, inner = value
                times = self._rng.randint(least, min(int(most), least + _REPEATS_MAX))
                text = "".join(self._sequence(inner) for _ in range(times))
            case "SUBPATTERN":
                text = self._sequence(value[-1])
            case "ATOMIC_GROUP":
                text = self._sequence(value)
            case "BRANCH":
                text = self._sequence(self._rng.choice(value[1]))
            case other if other != "AT":
                raise ValueError(f"no text is made of {other.lower()} in a pattern")
        return text

    def _one(self, characters: set[str]) -> str:
        if not characters:
            raise ValueError("the pattern has a class of characters that none is in")
        liked = sorted(characters & self._liked)
        return self._rng.choice(liked if liked and self._rng.random() < 0.5 else sorted(characters))


def _class(items: Any) -> set[str]:
    found: set[str] = set()
    negated = False
    for code, value in items:
        match str(code):
            case "NEGATE":
                negated = True
            case "LITERAL":
                found.add(chr(value))
            case "RANGE":
                found.update(chr(each) for each in range(value[0], min(value[1], value[0] + 255) + 1))
            case "CATEGORY":
                name = str(value)
                positive = _CATEGORIES.get(name.replace("_NOT_", "_"), "")
                found.update(set(_PLAIN) - set(positive) if "_NOT_" in name else positive)
            case other:
                raise ValueError(f"no text is made of {other.lower()} in a class of a pattern")
    return set(_PLAIN + " -_.") - found if negated else found
