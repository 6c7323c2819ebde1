"""The manifest of the live views as it is kept: who put it in force last, wins, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.rpc.view_service import BY_COUNTRY, BY_MINUTE, VIEWS, manifest, serving

from ingest_service.errors import BadRequest, ConfigError, StorageError
from ingest_service.log.files import OsFiles
from ingest_service.rpc.view_manifest import ViewManifest

FIRST, SECOND, THIRD = (manifest({name: BY_COUNTRY}) for name in ("first", "second", "third"))


class PowerGone(BaseException):
    """Nothing after it happens."""


class Disk(OsFiles):
    """A disk that is full from a replacement on, or loses power at it."""

    def __init__(self, fails_from: int = 1 << 30, failure: BaseException | None = None) -> None:
        self.replaced = 0
        self._fails_from, self._failure = fails_from, failure or OSError(28, "No space left on device")

    def replace(self, path: Path, data: bytes) -> None:
        if self.replaced >= self._fails_from:
            raise self._failure
        self.replaced += 1
        super().replace(path, data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "live" / "manifest.json"


def start(path: Path, given: Path | None = None, files: OsFiles | None = None) -> bytes | None:
    """What a start would open the views from, once it has."""
    kept = ViewManifest(path, given, files)
    chosen = kept.at_start()
    content = None if chosen is None else chosen.read_bytes()
    kept.taken()
    return content


def apply(path: Path, content: bytes, files: OsFiles | None = None) -> list[bytes]:
    """What took effect."""
    seen: list[bytes] = []
    ViewManifest(path, files=files).apply(content, seen.append)
    return seen


def test_what_was_applied_is_found_again(path: Path) -> None:
    assert start(path) is None
    assert apply(path, FIRST) == [FIRST]
    assert start(path) == FIRST
    assert apply(path, SECOND) == [SECOND]
    assert (start(path), path.read_bytes()) == (SECOND, SECOND)


def test_a_file_is_taken_once_and_again_when_it_has_changed(path: Path, tmp_path: Path) -> None:
    given = tmp_path / "manifest.json"
    given.write_bytes(FIRST)
    assert (start(path, given), start(path)) == (FIRST, FIRST)
    apply(path, SECOND)
    assert (start(path, given), start(path)) == (SECOND, SECOND)
    given.write_bytes(THIRD)
    assert (start(path, given), start(path), start(path, given)) == (THIRD, THIRD, THIRD)


def test_the_file_may_be_the_one_that_is_kept(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(FIRST)
    assert start(path, path) == FIRST
    apply(path, SECOND)
    assert start(path, path) == SECOND
    path.write_bytes(THIRD)
    assert start(path, path) == THIRD
    assert sorted(each.name for each in path.parent.iterdir()) == ["manifest.json"]


@pytest.mark.parametrize("steps", [0, 1])
def test_a_start_that_loses_power_takes_the_file_again(path: Path, tmp_path: Path, steps: int) -> None:
    apply(path, FIRST)
    given = tmp_path / "manifest.json"
    given.write_bytes(SECOND)
    with pytest.raises(PowerGone):
        start(path, given, Disk(steps, PowerGone()))
    assert start(path, given) == SECOND
    apply(path, THIRD)
    assert start(path, given) == THIRD


def test_what_loses_power_before_it_is_kept_never_was(path: Path) -> None:
    apply(path, FIRST)
    with pytest.raises(PowerGone):
        apply(path, SECOND, Disk(0, PowerGone()))
    assert start(path) == FIRST


def test_what_loses_power_once_it_is_kept_takes_effect_with_the_next_start(path: Path) -> None:
    apply(path, FIRST)

    def lose_power(_: bytes) -> None:
        raise PowerGone

    with pytest.raises(PowerGone):
        ViewManifest(path, files=Disk(1, PowerGone())).apply(SECOND, lose_power)
    assert start(path) == SECOND


def test_what_can_not_be_kept_does_not_take_effect(path: Path) -> None:
    apply(path, FIRST)
    seen: list[bytes] = []
    with pytest.raises(StorageError, match="No space left on device; the one before stays in force"):
        ViewManifest(path, files=Disk(0)).apply(SECOND, seen.append)
    assert (seen, start(path)) == ([], FIRST)


@pytest.mark.parametrize("before", [None, FIRST])
def test_what_does_not_take_effect_is_not_kept(path: Path, before: bytes | None) -> None:
    if before is not None:
        apply(path, before)

    def fail(_: bytes) -> None:
        raise StorageError("the store is full")

    with pytest.raises(StorageError, match="the store is full"):
        ViewManifest(path).apply(SECOND, fail)
    assert start(path) == (before or b'{"nodes": {}}')


@pytest.mark.parametrize("content", [b"", b"7", b"[]", b"{}"])
def test_what_is_no_manifest_is_neither_kept_nor_takes_effect(path: Path, content: bytes) -> None:
    apply(path, FIRST)
    with pytest.raises(BadRequest):
        apply(path, content)
    assert start(path) == FIRST


def test_a_file_that_can_not_be_read_stops_the_start(path: Path, tmp_path: Path) -> None:
    given = tmp_path / "manifest.json"
    given.write_bytes(FIRST)
    start(path, given)
    given.unlink()
    with pytest.raises(ConfigError, match=r"--manifest: .* can't be read: No such file"):
        start(path, given)


def test_a_service_ends_up_where_an_interrupted_change_would_have_led(tmp_path: Path) -> None:
    """A crash between keeping a manifest and its effect: the next start has the views and the rows that it asks for."""
    with serving(tmp_path, manifest(VIEWS)) as served:
        served.rows("by_country", served.send({"units": 3}, {"units": 4}))
    changed = manifest({"by_country": BY_COUNTRY.replace("sum(units)", "max(units)"), "added": BY_MINUTE})
    (tmp_path / "data" / "live" / "manifest.json").write_bytes(changed)
    with serving(tmp_path, given=tmp_path / "manifest.json") as served:
        assert [view.view for view in served.tm.views()] == ["added", "by_country"]
        with served.tm.view("by_country").watch() as watch:
            units = [row["units"] for row in next(watch)]
            while units != [4]:
                units = [row["units"] for row in next(watch)]
        assert served.rows("added", 2)[0]["sales"] == 2
