"""Makes single values up, by their type and the bounds that buf.validate's rules give them.

Numbers are moderate and fractions are binary ones, so that sums of doubles do not depend on their order; declared
bounds come up, too. Whether a value really keeps all rules is asked afterwards (`EventMaker`): none has to be certain.
"""

from __future__ import annotations

import ipaddress
import math
import random
import uuid
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from ingest_service.contracts.contract import extension
from ingest_service.live.trial.hints import Hints
from ingest_service.live.trial.pattern import PatternText

_WORDS = ("alpha", "Beta", "gamma delta", "Zürich", "", "é", "0", "x-1", "日本", "O'Hara", "a\\b", "NULL", " ", "Ω")
_OF_FORMAT = {
    "email": ("a@example.org", "b.c@example.com", "d+e@example.net"),
    "hostname": ("a.example.org", "b.example.com", "localhost"),
    "ip": ("192.0.2.1", "192.0.2.77", "2001:db8::1"),
    "ipv4": ("192.0.2.1", "192.0.2.77", "198.51.100.3"),
    "ipv6": ("2001:db8::1", "2001:db8::77", "2001:db8:1::3"),
    "uri": ("https://example.org/", "https://example.com/a?b=c", "urn:a:b"),
    "uri_ref": ("/a", "../b", "https://example.com/c"),
    "address": ("a.example.org", "192.0.2.1"),
    "host_and_port": ("a.example.org:80", "192.0.2.1:7433"),
    "ip_with_prefixlen": ("192.0.2.1/24", "2001:db8::1/32"),
    "ipv4_with_prefixlen": ("192.0.2.1/24", "192.0.2.77/8"),
    "ipv6_with_prefixlen": ("2001:db8::1/32", "2001:db8::77/64"),
    "ip_prefix": ("192.0.2.0/24", "2001:db8::/32"),
    "ipv4_prefix": ("192.0.2.0/24", "10.0.0.0/8"),
    "ipv6_prefix": ("2001:db8::/32", "2001:db8:1::/48"),
    "protobuf_fqn": ("a.b.C", "d.E"),
    "protobuf_dot_fqn": (".a.b.C", ".d.E"),
    "ulid": ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01BX5ZZKBKACTAV9WEVGEMMVRZ"),
    "well_known_regex": ("accept", "x-request-id", "host"),
}
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_EIGHTHS = 8
_AT_A_BOUND = 0.05
_NEAR_A_HINT = 0.2
_ODD = 0.01


class Scalars:
    """Single values; draws from one random generator, so the same seed gives the same values."""

    def __init__(self, hints: Hints, rng: random.Random) -> None:
        self._hints = hints
        self._rng = rng
        self._liked = "".join(sorted(set("".join(hints.texts)) - set(" ")))

    def make(self, field: FieldDescriptor, rules: Any) -> Any:
        """A value of a field, or of one element of it; `rules` are its own (buf.validate.FieldRules), or None."""
        kind = rules.WhichOneof("type") if rules is not None else None
        typed = getattr(rules, kind) if kind is not None else None
        given = listed(typed)
        if given:
            return self._rng.choice(given)
        made: Any
        if field.cpp_type in _INTEGERS:
            made = self._integer(typed, *_INTEGERS[field.cpp_type])
        elif field.cpp_type in _FLOATS:
            made = self._fraction(typed)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            made = self._rng.random() < 0.5
        elif field.enum_type is not None:
            made = self._rng.choice([value.number for value in field.enum_type.values])
        elif field.type == FieldDescriptor.TYPE_BYTES:
            made = self._bytes(typed)
        else:
            options = extension(field, "tidemill.v1.field")
            is_decimal = options is not None and options.HasField("decimal")
            made = self._decimal(options.decimal) if is_decimal else self._string(typed)
        return made

    def _integer(self, typed: Any, least: int, most: int) -> int:
        bounds = _declared(typed, 1)
        if bounds and self._rng.random() < _AT_A_BOUND:
            return int(self._rng.choice(list(bounds.values())))
        low = max(least, math.ceil(bounds.get("low", least)))
        high = min(most, math.floor(bounds.get("high", most)))
        hinted = self._near_hint()
        if hinted is not None and low <= hinted <= high:
            return int(hinted)
        return self._rng.randint(*_moderate(low, high))

    def _fraction(self, typed: Any) -> float:
        bounds = _declared(typed, 0)
        chance = self._rng.random()
        if chance < _ODD and not getattr(typed, "finite", False):
            return self._rng.choice([math.nan, -0.0])
        if bounds and chance < _AT_A_BOUND:
            return float(self._rng.choice(list(bounds.values())))
        low, high = bounds.get("low", -1e9), bounds.get("high", 1e9)
        hinted = self._near_hint()
        if hinted is not None and low <= hinted <= high:
            return float(hinted)
        if high - low <= 2:
            return float(low + (high - low) * self._rng.randint(0, 64) / 64)
        return self._rng.randint(*_moderate(math.ceil(low * _EIGHTHS), math.floor(high * _EIGHTHS))) / _EIGHTHS

    def _decimal(self, declared: Any) -> str:
        precision, scale = declared.precision, declared.scale
        limit = 10 ** min(precision, scale + 3) - 1
        number = Decimal(self._rng.randint(-limit // 20, limit)).scaleb(-scale)
        hinted = self._near_hint()
        if hinted is not None and abs(hinted) < Decimal(10) ** (precision - scale):
            number = hinted
        return format(number.quantize(Decimal(1).scaleb(-scale)), "f")

    def _near_hint(self) -> Decimal | None:
        """Now and then a number that a model compares with, or one beside it."""
        if not self._hints.numbers or self._rng.random() >= _NEAR_A_HINT:
            return None
        return self._rng.choice(self._hints.numbers) * self._rng.choice([1, 1, -1]) + self._rng.choice([0, 0, 1, -1])

    def _string(self, typed: Any) -> str:
        names = {each.name for each, _ in typed.ListFields()} if typed is not None else set()
        if "pattern" in names:
            return PatternText(typed.pattern, self._liked, self._rng).make()
        if names & {"uuid", "tuuid"}:
            made = uuid.UUID(int=self._rng.getrandbits(128), version=4)
            return str(made) if "uuid" in names else made.hex
        formats = names & set(_OF_FORMAT)
        if formats:
            return self._rng.choice(_OF_FORMAT[min(formats)])
        text = self._text(typed)
        return text if typed is None else f"{typed.prefix}{typed.contains}{text}{typed.suffix}"

    def _bytes(self, typed: Any) -> bytes:
        names = {each.name for each, _ in typed.ListFields()} if typed is not None else set()
        if "uuid" in names:
            return self._rng.randbytes(16)
        addresses = names & {"ip", "ipv4", "ipv6"}
        if addresses:
            return ipaddress.ip_address(self._rng.choice(_OF_FORMAT[min(addresses)])).packed
        if "pattern" in names:
            return PatternText(typed.pattern, self._liked, self._rng).make().encode()
        made = self._text(typed).encode()
        return made if typed is None else bytes(typed.prefix + typed.contains + made + typed.suffix)

    def _text(self, typed: Any) -> str:
        hinted = self._hints.texts and self._rng.random() < 0.5
        text = self._rng.choice(self._hints.texts if hinted else _WORDS)
        if typed is None:
            return text
        least = int(typed.len if typed.HasField("len") else typed.min_len)
        most = int(typed.len if typed.HasField("len") else typed.max_len or max(len(text), least))
        return text.ljust(least, "x")[:most]


def listed(typed: Any) -> list[Any]:
    """The values that a rule lists: `const`, `in`."""
    if typed is None:
        return []
    fields = {each.name: value for each, value in typed.ListFields()}
    return [fields["const"]] if "const" in fields else list(fields.get("in", ()))


def _declared(typed: Any, step: int) -> dict[str, Any]:
    """The bounds that a number's rules declare: `low` and `high`, both allowed themselves."""
    fields = {} if typed is None else {each.name: value for each, value in typed.ListFields()}
    sides = (("low", "gte", 0), ("low", "gt", step), ("high", "lte", 0), ("high", "lt", -step))
    bounds = {side: fields[name] + shift for side, name, shift in sides if name in fields}
    if bounds.get("low", -math.inf) > bounds.get("high", math.inf):
        del bounds["high"]  # buf.validate takes these as: outside of the two
    return bounds


def _moderate(low: int, high: int) -> tuple[int, int]:
    """Bounds within bounds: small numbers where those are allowed."""
    least = max(low, -20) if high >= -20 else low
    return least, min(high, max(least, 0) + 1000)
