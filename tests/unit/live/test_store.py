"""The store's file: damaged, or of an earlier format."""

import sqlite3
from typing import Any

import pytest

from ingest_service.live import LiveViews, ViewQuery


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_store_is_set_aside_and_made_again(kit: Any, content: bytes, caplog: Any) -> None:
    kit.log.append([kit.line(0)])
    (kit.folder / "live.sqlite").write_bytes(content)
    views = LiveViews.open(kit.manifest({"sales": kit.SALES}), kit.url, {"order_lines": kit.log})
    try:
        assert views.query(ViewQuery("sales", after_offset=1)).table.num_rows == 1
    finally:
        views.close()
    kept = list(kit.folder.glob("live.sqlite.damaged-*"))
    assert [file.read_bytes() for file in kept] == ([content] if content else [])
    assert ("is damaged; it is kept as" in caplog.text) == bool(content)


def test_views_of_an_earlier_format_are_made_again(kit: Any) -> None:
    with sqlite3.connect(kit.folder / "live.sqlite") as old:
        old.execute("create table tidemill_views (view text primary key, stream text, definition_hash text, "
                    "description text, next_offset bigint, event_time_max_us bigint, append_time_max_us bigint, "
                    "watermark_us bigint)")  # fmt: skip
        old.execute("create table tidemill_seals (view text, first_date text, last_date text, seal_offset bigint)")
        old.execute("insert into tidemill_views values ('sales', 'order_lines', 'x', '{}', 7, null, null, null)")
        for part in ("", "__state", "__distinct", "__sealed"):
            old.execute(f"create table sales{part} (x)")
    old.close()
    kit.log.append([kit.line(0)])
    with kit.view() as view:
        view.apply(kit.log.entries)
    assert kit.assert_agrees() == 1
