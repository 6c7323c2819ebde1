import json
import os
import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pytest

from quality import report_page
from quality.config import DayConfig
from quality.data_docs import write_data_docs
from quality.errors import CheckFailed
from quality.gate import Suite, run_suites
from quality.report_page import GX_SEVERITY, in_words, write_report
from quality.run import Run, save_run

pytestmark = [
    # GX calls names that its libraries have renamed since; its release is pinned, and not ours to change.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:duckdb-engine doesn't yet support reflection on indices"),
]
STOP, WARN = GX_SEVERITY["STOP"], GX_SEVERITY["WARN"]
EVIL = "<script>alert('1')</script><img src=https://example.com/x onerror=alert(1)>\u202e\n" + "x" * 500
Check = Callable[..., dict]
Keep = Callable[..., Path]


class Addresses(HTMLParser):
    """Collects what a page links to, what it would load, and its tags."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.text = page.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on")]
        if "href" in given:
            (self.links if tag == "a" else self.loads).append(given["href"] or "")
        if "src" in given:
            self.loads.append(given["src"] or "")


@pytest.fixture
def check(config: DayConfig, run: Run, tmp_path: Path) -> Check:
    """Checks 1,000 rows by GX as suite `source_lines`; every tenth `name` is NULL, `evil` is hostile everywhere."""
    database = tmp_path / "rows.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute(
            "create table rows as select i as n, case when i % 10 <> 0 then 'x' || i end as name, $evil as evil "
            "from range(1000) t(i)",
            {"evil": EVIL},
        )

    def run_check(*expectations: object) -> dict:
        return run_suites(
            config, run, database, [Suite("source_lines", "select * from rows", ("n",), tuple(expectations))]
        )

    return run_check


@pytest.fixture
def keep(config: DayConfig) -> Keep:
    """Keeps a result as GX does: of a run and a suite, at a second of 2011-12-06, with one check."""

    def keep_result(
        run_id: str, second: int, suite: str = "source_lines", success: bool = True, severity: str = WARN
    ) -> Path:
        result = {
            "success": success,
            "expectation_config": {
                "type": "expect_column_values_to_be_unique",
                "kwargs": {"column": "n", "batch_id": "b"},
                "severity": severity,
            },
            "exception_info": {"raised_exception": False},
            "result": {"element_count": 4, "unexpected_count": 0 if success else 2},
        }
        moment = f"20111206T00{second // 60:02}{second % 60:02}.000000Z"
        file = config.expectations / "results" / suite / run_id / moment / "lake.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"results": [result]}))
        return file

    return keep_result


def listed(config: DayConfig) -> list[str]:
    """The runs that the index links to, in its order; every link must have a page."""
    links = [link for link in Addresses(config.data_docs / "index.html").links if link.startswith("runs/")]
    assert all((config.data_docs / unquote(link)).is_file() for link in links)
    return list(dict.fromkeys(unquote(link).removeprefix("runs/").removesuffix(".html") for link in links))


def row(config: DayConfig, run_id: str) -> str:
    """The words in a run's row of the index."""
    text = (config.data_docs / "index.html").read_text(encoding="utf-8")
    (found,) = [part for part in re.findall(r"<tr>.*?</tr>", text, re.DOTALL) if f"runs/{run_id}.html" in part]
    return " ".join(re.sub(r"<[^>]+>", " ", found).split())


def test_results_of_gx_are_shown_in_words_with_failures_first(check: Check, config: DayConfig):
    import great_expectations.expectations as e

    with pytest.raises(CheckFailed) as caught:
        check(
            e.ExpectColumnValuesToBeUnique(column="n", severity=STOP),
            e.ExpectColumnValuesToNotBeNull(column="name", severity=WARN),
            e.ExpectColumnValuesToBeInSet(column="evil", value_set=["good"], severity=WARN),
            e.ExpectColumnValuesToBeBetween(column="n", max_value=989, severity=STOP),
            e.ExpectTableRowCountToBeBetween(min_value=2_000, severity=WARN),
            e.ExpectColumnValuesToNotBeNull(column="no_such_column", severity=WARN),
        )
    # No stage after the failed one is reached: the gate wrote the pages.
    assert row(config, "r1").startswith("2011-12-05 r1 ")
    assert re.search(r" \d\d:\d\d:\d\d failed 2 3 1 source_lines$", row(config, "r1"))
    page = Addresses(config.data_docs / "runs" / "r1.html")
    order = [page.text.index(part) for part in (">Failed ", ">Warned ", ">Passed ", ">Suites<")]
    assert order == sorted(order)
    words = " ".join(re.sub(r"<[^>]+>", " ", page.text.replace("<wbr>", "")).split())
    assert "lines n is at most 989 column_values_to_be_between stops the day 1,000 10 1.00 % n 990 991 992" in words
    assert "lines name has a value column_values_to_not_be_null warns 1,000 100 10.00 %" in words
    assert "number of rows is at least 2,000" in words
    assert "found 1000" in words
    assert 'could not be made: Error: The column "no_such_column"' in words.replace("&#34;", '"')
    for name in caught.value.checks:
        file = f"runs/r1/failed/{name}.parquet"
        assert (file in page.text) == (config.data / file).is_file() == ("no_such_column" not in name)
    (gx,) = [link for link in page.links if link.startswith("../gx/validations/")]
    assert (config.data_docs / "runs" / unquote(gx)).is_file()
    assert (config.data_docs / "gx" / "index.html").is_file()


def test_pages_load_nothing_and_event_data_stays_text(check: Check, config: DayConfig):
    import great_expectations.expectations as e

    check(e.ExpectColumnValuesToBeInSet(column="evil", value_set=["good"], severity=WARN))
    index = write_data_docs(config, "r1")
    assert index == config.data_docs / "index.html"
    for file in (index, config.data_docs / "runs" / "r1.html"):
        page = Addresses(file)
        assert page.loads == ["data:,"]
        assert not page.tags & {"script", "img", "iframe", "object", "form", "base"}
        assert not [link for link in page.links if re.match(r"[a-z]+:|//", link, re.IGNORECASE)]
        assert "default-src 'none'" in page.text
        assert not re.search(r"url\(|@import", page.text)
    assert escape("<script>alert('1')</script>").replace("&#x27;", "&#39;") in page.text
    assert "\\u202e\\n" in page.text
    assert "\u202e" not in page.text
    assert "x" * 200 not in page.text


def test_repeating_changes_nothing(check: Check, config: DayConfig):
    import great_expectations.expectations as e

    check(e.ExpectColumnValuesToBeUnique(column="n", severity=STOP))
    files = [write_data_docs(config, "r1"), config.data_docs / "runs" / "r1.html"]
    before = [file.read_bytes() for file in files]
    write_data_docs(config, "r1")
    assert [file.read_bytes() for file in files] == before
    # The newest result counts, and the page says that there was another.
    check(e.ExpectColumnValuesToBeUnique(column="n", severity=STOP))
    write_data_docs(config, "r1")
    assert "1 earlier result of this run is not shown" in files[1].read_text(encoding="utf-8")
    assert sorted(file.name for file in config.data_docs.iterdir()) == ["gx", "index.html", "runs"]


def test_the_newest_run_is_first_and_the_history_ends(config: DayConfig, keep: Keep, monkeypatch: pytest.MonkeyPatch):
    for run_id, second in (("b", 2), ("a:+1", 3), ("c", 1)):
        keep(run_id, second)
    save_run(config, Run("b", "2011-12-04", "2011-12-05"))
    write_report(config, "a:+1")
    assert listed(config) == ["a:+1", "b", "c"]
    assert row(config, "b") == "2011-12-04 to 2011-12-05 b 2011-12-06 00:00:02 passed 0 0 1 source_lines"
    assert row(config, "c").startswith("dates unknown c ")

    monkeypatch.setattr(report_page, "RUNS_MAX", 2)
    keep("d", 9, success=False)
    write_report(config, "d")
    assert listed(config) == ["d", "a:+1"]
    assert "passed with 1 warning 0 1 0" in row(config, "d")
    assert "The newest 2 of 4 runs" in (config.data_docs / "index.html").read_text(encoding="utf-8")
    assert sorted(page.stem for page in (config.data_docs / "runs").iterdir()) == ["a:+1", "d"]


def test_nothing_checked_yet_is_a_page_too(config: DayConfig):
    write_report(config, "r1")
    assert "No run has been checked yet" in (config.data_docs / "index.html").read_text(encoding="utf-8")


def test_a_page_that_is_older_than_its_results_is_written_again(config: DayConfig, keep: Keep):
    keep("old", 1)
    write_report(config, "old")
    page = config.data_docs / "runs" / "old.html"
    os.utime(page, (1, 1))
    keep("old", 2, success=False, severity=STOP)
    keep("new", 3)
    write_report(config, "new")
    assert row(config, "old").split()[-5:] == ["failed", "1", "0", "0", "source_lines"]
    assert ">failed</span></h1>" in page.read_text(encoding="utf-8")


def test_a_source_checked_again_makes_what_was_found_of_the_marts_void(config: DayConfig, keep: Keep):
    keep("again", 1)
    keep("again", 2, suite="marts_orders", success=False, severity=STOP)
    write_report(config, "again")
    assert " failed 1 0 1 source_lines and 1 more" in row(config, "again")
    keep("again", 3)
    write_report(config, "again")
    assert " passed 0 0 1 source_lines" in row(config, "again")
    keep("again", 4, suite="marts_orders")
    write_report(config, "again")
    assert " passed 0 0 2 source_lines and 1 more" in row(config, "again")


@pytest.mark.parametrize("content", ["", "[]", '{"results": [{}]}', '{"results": null}'])
def test_a_result_that_cannot_be_read_is_not_one_that_passed(config: DayConfig, keep: Keep, content: str):
    keep("cut", 1)
    keep("cut", 2).write_text(content)
    stranger = config.expectations / "results" / "source_lines" / "cut" / "yesterday" / "lake.json"
    stranger.parent.mkdir()
    stranger.write_text("{}")
    write_report(config, "cut")
    assert " unreadable 0 0 0 " in row(config, "cut")
    page = (config.data_docs / "runs" / "cut.html").read_text(encoding="utf-8")
    assert "docs/gx/results/source_lines/cut/20111206T000002.000000Z/lake.json is no result" in page


@pytest.mark.parametrize(
    ("kind", "columns", "arguments", "words"),
    [
        ("column_values_to_be_between", "a", {"min_value": 0.0, "strict_min": True}, "is above 0"),
        (
            "column_values_to_be_between",
            "a",
            {"min_value": -1e6, "max_value": 5},
            "is at least -1,000,000 and at most 5",
        ),
        ("column_values_to_be_between", "a", {"max_value": "2011-12-05", "strict_max": True}, "is below 2011-12-05"),
        ("column_values_to_be_between", "a", {}, "is any"),
        ("column_value_lengths_to_be_between", "a", {"min_value": 1}, "length is at least 1"),
        ("column_values_to_be_in_set", "a", {"value_set": [True]}, "is true"),
        ("column_values_to_not_be_in_set", "a", {"value_set": ["x", ""]}, "is not one of x, ''"),
        ("column_values_to_not_be_null", "a", {"mostly": 0.95}, "has a value; mostly 0.95"),
        ("column_pair_values_to_be_equal", "ab", {}, "a = b"),
        ("column_pair_values_a_to_be_greater_than_b", "ab", {}, "a > b"),
        (
            "column_pair_values_a_to_be_greater_than_b",
            "ab",
            {"or_equal": True, "ignore_row_if": "either_value_is_missing"},
            "a ≥ b; ignore row if either value is missing",
        ),
        ("column_to_exist", "a", {"column_index": None}, "column to exist; column index NULL"),
    ],
)
def test_expectations_are_told_in_words(kind: str, columns: str, arguments: dict, words: str):
    given = dict(arguments)
    assert in_words(kind, list(columns), arguments) == words
    assert arguments == given
