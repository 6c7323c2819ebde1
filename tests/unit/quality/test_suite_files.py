"""A project's suite files: loaded by path, their mistakes told in a line."""

from pathlib import Path

import pytest

from quality.errors import ConfigWrong
from quality.suite import STOP, WARN, MartSuite, SourceSuite, by_date, holds, late_share, row_count, unique, usual
from quality.suite_files import load_suites

GOOD = "from quality.suite import STOP, SourceSuite, no_nulls\nsuite = SourceSuite('{}', no_nulls(STOP, 'a'))\n"


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_suites_are_found_in_the_order_of_files_and_lines(tmp_path: Path):
    folder = write(tmp_path / "suites", "b.py", GOOD.format("orders"))
    write(folder, "a.py", "from quality.suite import *\nx = MartSuite('m')\ny = [MartSuite('n'), SourceSuite('s')]\n")
    write(folder, "_shared.py", "1 / 0")
    write(folder, "notes.txt", "no suite")
    found = load_suites(folder)
    assert [each.name for each in found.sources] == ["source_s", "source_orders"]
    assert [each.name for each in found.marts] == ["marts_m", "marts_n"]
    # Nothing is left beside them.
    assert sorted(each.name for each in folder.iterdir()) == ["_shared.py", "a.py", "b.py", "notes.txt"]
    assert load_suites(tmp_path / "none").sources == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = (\n", r"suites/bad.py, line 1: '\(' was never closed"),
        ("\n\nimport quality.suites_\n", r"line 3: ModuleNotFoundError: No module named 'quality.suites_'"),
        (
            "from quality.suite import *\nholds('a > 1', STOP)\n",
            "line 2: TypeError: holds: expected STOP or WARN first",
        ),
        ("raise SystemExit\n", "line 1: SystemExit"),
        ("def f():\n    return 1 / 0\n\nf()\n", "line 2: ZeroDivisionError"),
        ("x = 1\n", "expected a SourceSuite or a MartSuite, found none"),
        (GOOD.format("orders"), r"a suite 'source_orders' is in suites/a_good.py already"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(tmp_path: Path, text: str, told: str):
    folder = write(tmp_path / "suites", "a_good.py", GOOD.format("orders"))
    write(folder, "bad.py", text)
    with pytest.raises(ConfigWrong, match=told) as caught:
        load_suites(folder)
    assert "\n" not in str(caught.value)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path):
    outside = write(tmp_path / "other", "suite.py", GOOD.format("orders")) / "suite.py"
    (write(tmp_path / "suites", "a.py", GOOD.format("a")) / "linked.py").symlink_to(outside)
    with pytest.raises(ConfigWrong, match=r"suites/linked.py: expected a file of .*suites, found a link to "):
        load_suites(tmp_path / "suites")


def test_names_are_made_from_what_is_expected():
    names = [
        holds(WARN, "unit_price > 0").name,
        holds(WARN, "a >= 1", says="One at the least!").name,
        holds(WARN, "a = 1", name="b").name,
        unique(STOP, "a", "b").name,
        by_date(WARN, "sum(x)", at_most=1).name,
    ]
    assert names == ["unit_price_above_0", "one_at_the_least", "b", "no_a_b_twice", "sum_x"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: holds(STOP, "a > 1", name="A b"), "expected a name of lower case letters"),
        (lambda: unique(STOP), "unique: expected one column or more"),
        (lambda: row_count(WARN), "row_count: expected at_least=… or at_most=…"),
        (lambda: late_share(WARN, at_most=5), "expected at_most as a share from 0 to 1, came 5"),
        (lambda: usual(WARN, "sum(x)", within=0.5, weeks=1), "expected within above 0, and weeks_min from 1 to weeks"),
        (lambda: SourceSuite("Orders"), "expected a name of lower case letters"),
        (lambda: SourceSuite("orders", "a > 1"), "expected expectations, came 'a > 1'"),
        (lambda: MartSuite("m", row_count(WARN, at_least=1)), "rows is by date; say date="),
        (lambda: MartSuite("m", late_share(WARN, at_most=0.1)), "put it into a SourceSuite"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_written(make, told: str):
    with pytest.raises((TypeError, ValueError), match=told):
        make()
