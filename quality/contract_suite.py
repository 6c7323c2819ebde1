"""Makes expectations of a contract's rules: what was promised when the rows arrived is checked again where they rest.

The rules stand in the generated dbt sources, in the neutral form of `ingest_service.contracts.field_rules`. A row that
the service let in keeps every one of these expectations; one that was changed by hand, or written by something else,
does not. All of them stop the day. Rules that have no form in SQL are `not_checked`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import LakeFailed
from quality.run import Run
from quality.suite import STOP, WARN, NoRowTwice, NotChecked, OfRows, Severity, SourceSuite
from tidemill.lake import identifier, literal, read_yaml

_SYSTEM = ("_partition", "_offset", "_append_time")
_FLOATS = ("FLOAT", "DOUBLE")
_ZERO = {"VARCHAR": "''", "BLOB": "''::blob", "BOOLEAN": "false"}
_BOUND = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_WORDS = {"gt": "above", "gte": "at least", "lt": "below", "lte": "at most"}
_FIND = {"prefix": "starts_with({}, {})", "suffix": "ends_with({}, {})", "contains": "contains({}, {})",
         "not_contains": "not contains({}, {})"}  # fmt: skip
_FIND_WORDS = {
    "prefix": "begins with",
    "suffix": "ends with",
    "contains": "contains",
    "not_contains": "does not contain",
}

Rules = Mapping[str, Any]


class ContractSuite(SourceSuite):
    """The expectations that a stream's contract gives.

    personal: columns about persons; event_time: the column; not_checked: the rules that have no form in SQL.
    """

    prefix = "contract"

    def __init__(self, table: Mapping[str, Any], severity: Severity = STOP) -> None:
        """table: the stream's entry in the dbt sources. severity: WARN where another contract is in force."""
        config = table["config"]
        stream, columns = config["meta"]["stream"], table["columns"]
        rules = {each["name"]: _meta(each).get("rules", {}) for each in columns}
        types = {each["name"]: each["data_type"] for each in columns}
        self.event_time: str = config["event_time"]
        self.contract_version = int(config["meta"].get("contract_version", 0))
        self.personal = frozenset(each["name"] for each in columns if _meta(each).get("personal"))
        expectations: list[Any] = [*_of_system(severity, self.event_time, types)]
        for name, given in rules.items():
            expectations += _of_column(severity, name, types[name], given)
        for oneof in config["meta"].get("rules", {}).get("oneofs", []):
            expectations.append(_of_oneof(severity, oneof))
        ids = [name for name, given in rules.items() if given.get("unique")]
        super().__init__(stream, *expectations, key=("_offset", *(each for each in ids if each not in self.personal)))
        left_out = [("", rule) for rule in config["meta"].get("rules", {}).get("not_checked", [])]
        left_out += [left for name, given in rules.items() for left in _left_out(name, given)]
        self.not_checked = tuple(
            NotChecked(f"{stream}.{subject}" if subject else stream, rule) for subject, rule in left_out
        )


def contract_suites(config: DayConfig, run: Run) -> list[ContractSuite]:
    """Give the suite of each stream of the dbt sources, in the order of the run's streams; raises LakeFailed.

    Where a later version of the contract is in force than the project knows, its rows may keep rules that are looser:
    what breaks the project's rules is then worth knowing, and no broken promise.
    """
    tables = _tables(config.sources)
    suites = []
    for stream, pin in run.streams.items():
        if stream not in tables:
            raise LakeFailed(
                f"expected a source of stream {stream!r} in {config.sources}; found none. Run `make proto`"
            )
        known = int(tables[stream]["config"]["meta"].get("contract_version", 0))
        in_force = int(pin.counts.get("contract_version", 0))
        suites.append(ContractSuite(tables[stream], WARN if known and in_force > known else STOP))
    return suites


def _tables(folder: Path) -> dict[str, Mapping[str, Any]]:
    import yaml

    tables = {}
    for file in sorted(folder.glob("*.yml")):
        try:
            content = read_yaml(file.read_text(encoding="utf-8")) or {}
            for source in content.get("sources", []):
                for table in source["tables"]:
                    if "stream" in table.get("config", {}).get("meta", {}):
                        tables[table["config"]["meta"]["stream"]] = table
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise LakeFailed(f"{file}: expected dbt sources; {error!r}. Run `make proto`") from error
    return tables


def _meta(column: Mapping[str, Any]) -> Mapping[str, Any]:
    meta: Mapping[str, Any] = column.get("config", {}).get("meta", {})
    return meta


def _of_system(severity: Severity, event_time: str, types: Mapping[str, str]) -> Iterator[Any]:
    for name in _SYSTEM:
        if name in types:
            condition = f"{identifier(name)} is not null"
            yield OfRows(severity, f"row_has{name}", f"{name} has a value", condition, (name,))
    yield NoRowTwice(severity, "offset_once", "no _offset twice", ("_offset",))
    condition = f"event_date = cast({identifier(event_time)} as date)"
    yield OfRows(severity, "event_date_is_that_of_event_time", f"event_date is {event_time}'s UTC date", condition,
                 (event_time, "event_date"))  # fmt: skip


def _of_column(severity: Severity, name: str, kind: str, rules: Rules) -> Iterator[Any]:
    """One expectation for what is said about the value's presence, its bounds, its length and so on."""
    for slug, says, condition in _conditions(identifier(name), kind, rules, 0):
        yield _rows(severity, name, slug, says, condition)
    if rules.get("unique"):
        yield NoRowTwice(severity, f"{name}_once", f"no {name} twice", (name,))


def _rows(severity: Severity, column: str, slug: str, says: str, condition: str) -> OfRows:
    name = re.sub(r"[^a-z0-9_]", "_", f"{column.lower().strip('_')}_{slug}")[:80]
    return OfRows(severity, name, f"{column} {says}", condition, (column,))


def _of_oneof(severity: Severity, oneof: Mapping[str, Any]) -> OfRows:
    names = oneof["fields"]
    count = " + ".join(f"({identifier(name)} is not null)::int" for name in names)
    how = "one" if oneof["required"] else "at most one"
    says = f"{how} of {', '.join(names)} has a value"
    return OfRows(
        severity, f"one_of_{names[0].lower()}", says, f"{count} {'=' if oneof['required'] else '<='} 1", tuple(names)
    )


def _conditions(value: str, kind: str, rules: Rules, depth: int) -> Iterator[tuple[str, str, str]]:
    """Give what each group of rules about one value is called, what it says, and its condition. NULL keeps it."""
    if rules.get("not_null"):
        yield "has_a_value", "has a value", f"{value} is not null"
    if rules.get("not_zero"):
        yield "is_not_empty", "is not empty or zero", f"not ({_is_zero(value, kind)})"
    for slug, says, condition in _of_value(value, kind, rules, depth):
        # Of what is nothing, or may be zero, nothing more is asked.
        passes = f" or {_is_zero(value, kind)}" if rules.get("zero_passes") else ""
        yield slug, says, f"({condition}){passes}"


def _of_value(value: str, kind: str, rules: Rules, depth: int) -> Iterator[tuple[str, str, str]]:
    bounds = {name: rules[name] for name in ("gt", "gte", "lt", "lte") if name in rules}
    if bounds:
        yield "is_in_range", *_range(value, kind, bounds)
    if rules.get("finite"):
        yield "is_finite", "is finite", f"isfinite({value})"
    if "in" in rules:
        yield "is_one_of", f"is one of {_listed(rules['in'])}", f"{value} in ({_sql_list(rules['in'], kind)})"
    if "not_in" in rules:
        condition = f"{value} not in ({_sql_list(rules['not_in'], kind)})"
        yield "is_none_of", f"is not {_listed(rules['not_in'])}", condition
    for unit, measure in (
        ("len", "length"),
        ("bytes", "octet_length" if kind == "BLOB" else "strlen"),
        ("items", "len"),
    ):
        low, high = rules.get(f"min_{unit}"), rules.get(f"max_{unit}")
        counted = f"cardinality({value})" if kind.startswith("MAP(") else f"{measure}({value})"
        limits = [f"{counted} >= {low}"] if low else []
        limits += [f"{counted} <= {high}"] if high is not None else []
        if limits:
            words = {"len": "characters", "bytes": "bytes", "items": "elements"}[unit]
            span = " and ".join(
                ([f"at least {low:,}"] if low else []) + ([f"at most {high:,}"] if high is not None else [])
            )
            yield f"has_its_{unit}", f"has {span} {words}", " and ".join(limits)
    if "pattern" in rules:
        yield "has_its_form", f"matches {rules['pattern']}", f"regexp_matches({value}, {literal(rules['pattern'])})"
    for name, form in _FIND.items():
        if name in rules:
            yield name, f"{_FIND_WORDS[name]} {rules[name]}", form.format(value, literal(rules[name]))
    yield from _of_parts(value, kind, rules, depth)


def _of_parts(value: str, kind: str, rules: Rules, depth: int) -> Iterator[tuple[str, str, str]]:
    """The rules of what is within: elements, keys, values, a message's fields."""
    if rules.get("unique_items"):
        yield "elements_once", "has no element twice", f"len(list_distinct({value})) = len({value})"
    for part, words in (("items", "each element"), ("keys", "each key"), ("values", "each value")):
        if part not in rules:
            continue
        element = f"x{depth}"
        inner = element_type(kind, part)
        elements = value if part == "items" else f"map_{part}({value})"
        for slug, says, condition in _conditions(element, inner, rules[part], depth + 1):
            bad = f"list_filter({elements}, lambda {element}: not coalesce({condition}, true))"
            yield f"{part}_{slug}", f"{words} {says}", f"len({bad}) = 0"
    for name, given in rules.get("fields", {}).items():
        field = f"struct_extract({value}, {literal(name)})"
        for slug, says, condition in _conditions(field, field_type(kind, name), given, depth):
            # A message that is not there has no fields.
            yield f"{name.lower()}_{slug}", f".{name} {says}", f"{value} is null or ({condition})"


def _range(value: str, kind: str, bounds: Mapping[str, Any]) -> tuple[str, str]:
    limits = [f"{value} {_BOUND[name]} {_sql(bound, kind)}" for name, bound in bounds.items()]
    words = [
        f"{_WORDS[name]} {bound:,}" if isinstance(bound, int) else f"{_WORDS[name]} {bound}"
        for name, bound in bounds.items()
    ]
    lower = next((bounds[name] for name in ("gt", "gte") if name in bounds), None)
    upper = next((bounds[name] for name in ("lt", "lte") if name in bounds), None)
    excluded = lower is not None and upper is not None and lower > upper
    joined = (" or " if excluded else " and ").join(limits)
    # NaN is greater than all numbers to DuckDB, and within no bounds to the rule.
    condition = f"({joined}) and not isnan({value})" if kind in _FLOATS else joined
    return f"is {(' or ' if excluded else ' and ').join(words)}", condition


def _is_zero(value: str, kind: str) -> str:
    if kind.endswith("[]"):
        return f"len({value}) = 0"
    if kind.startswith("MAP("):
        return f"cardinality({value}) = 0"
    if kind in _FLOATS:
        # -0.0 is a value of its own.
        return f"{value} = 0 and not signbit({value})"
    return f"{value} = {_ZERO.get(kind, '0')}"


def _sql(value: Any, kind: str) -> str:
    if isinstance(value, str):
        return f"cast({literal(value)} as {kind})" if kind != "VARCHAR" else literal(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"cast({value!r} as {kind})" if kind in _FLOATS else str(value)


def _sql_list(values: list[Any], kind: str) -> str:
    return ", ".join(_sql(value, kind) for value in values)


def _listed(values: list[Any]) -> str:
    shown = [str(value) for value in values[:10]]
    return ", ".join(shown) + (f" and {len(values) - 10} more" if len(values) > 10 else "")


def element_type(kind: str, part: str) -> str:
    """Give the type of a list's elements, of a map's keys or values."""
    if part == "items":
        return kind.removesuffix("[]")
    key, value = _split(kind.removeprefix("MAP(").removesuffix(")"))
    return key if part == "keys" else value


def field_type(kind: str, name: str) -> str:
    """Give the type of a struct's field; "" where it has none of that name."""
    for part in _split(kind.removeprefix("STRUCT(").removesuffix(")")):
        if part.startswith(f"{identifier(name)} "):
            return part.removeprefix(f"{identifier(name)} ")
    return ""


def _split(text: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    parts, depth, begin = [], 0, 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[begin:place].strip())
            begin = place + 1
    return [*parts, text[begin:].strip()]


def _left_out(path: str, rules: Rules) -> Iterator[tuple[str, str]]:
    """Give the rules without a form in SQL, with the place that they are about."""
    for rule in rules.get("not_checked", []):
        yield path, rule
    for part, mark in (("items", "[]"), ("keys", "{}"), ("values", "[]")):
        if part in rules:
            yield from _left_out(f"{path}{mark}", rules[part])
    for name, given in rules.get("fields", {}).items():
        yield from _left_out(f"{path}.{name}", given)
