"""Which names streams, models and domains may have, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.local.errors import NameRefused
from tidemill.local.names import check_domain, check_name, message_name, project_name, singular, snake


@pytest.mark.parametrize("name", ["payments", "a", "page_views_2", "a" * 63, "lines", "orders"])
def test_a_name_is_taken(name: str) -> None:
    assert check_name("a stream", name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "came ''"),
        ("Page Views", "such as page_views; came 'Page Views'"),
        ("PageViews", "such as page_views"),
        ("page-views", "such as page_views"),
        ("1st", "a letter first"),
        ("_x", "such as x"),
        ("a" * 64, "at most 63"),
        ("päge", "lower case letters"),
        ("order", "'order' is a word of SQL: choose another name for a stream, such as order_events"),
        ("select", "is a word of SQL"),
        ("../../etc", "such as etc"),
        ("a\nb", "came 'a\\nb'"),
    ],
)
def test_a_name_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(NameRefused) as refused:
        check_name("a stream", name)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("class", "no word of Python"),
        ("Web", "lower case"),
        ("a.b", "lower case"),
        ("tests", "a folder of the project itself"),
        ("json", "a module of Python itself"),
        ("google", "a package that is installed"),
        ("tidemill", "a package of Tidemill"),
        ("quality", "a package of Tidemill"),
    ],
)
def test_a_domain_that_would_hide_a_package_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(NameRefused, match=said):
        check_domain(name, tmp_path)


def test_a_projects_own_package_is_its_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web_shop").mkdir()
    (tmp_path / "web_shop" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert check_domain("web_shop", tmp_path) == "web_shop"
    with pytest.raises(NameRefused, match="web_shop"):
        check_domain("web_shop", tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    assert check_domain("web_shop", tmp_path / "other") == "web_shop", "found only because Python was started here"


@pytest.mark.parametrize(
    ("stream", "event", "message"),
    [
        ("payments", "payment", "Payment"),
        ("page_views", "page_view", "PageView"),
        ("entries", "entry", "Entry"),
        ("addresses", "address", "Address"),
        ("boxes", "box", "Box"),
        ("status", "status", "Status"),
        ("press", "press", "Press"),
        ("traffic", "traffic", "Traffic"),
        ("s", "s", "S"),
    ],
)
def test_one_event_of_a_stream_has_a_name(stream: str, event: str, message: str) -> None:
    assert (singular(stream), message_name(stream)) == (event, message)


@pytest.mark.parametrize(
    ("text", "name"), [("My shop-2", "my_shop_2"), ("shop", "shop"), ("__x__", "x"), ("aB", "a_b"), ("…", "")]
)
def test_a_text_becomes_a_name(text: str, name: str) -> None:
    assert snake(text) == name


@pytest.mark.parametrize(("folder", "name"), [("my-shop", "my_shop"), ("2026", "project_2026"), ("…", "project")])
def test_a_folder_names_its_dbt_project(folder: str, name: str) -> None:
    assert project_name(Path(folder)) == name
