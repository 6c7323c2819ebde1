"""The log's bounds as options: read, refused, and described."""

import argparse
import dataclasses
import re
from pathlib import Path

import pytest

from ingest_service.errors import ConfigError
from ingest_service.log import LogSettings
from ingest_service.log_options import add_log_options, duration_s, log_settings, size_bytes

OPERATE = Path(__file__).parents[3] / "docs" / "operate.md"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_log_options(made)
    return made


def test_the_defaults_are_those_of_the_settings():
    assert log_settings(parser().parse_args([])) == LogSettings()


def test_what_is_asked_for_is_taken():
    asked = "--retain-age 12h --retain-bytes 50GB --segment-bytes 1MiB --dedup-ids 7 --dedup-age 90s --idle-after 0"
    assert log_settings(parser().parse_args(asked.split())) == dataclasses.replace(
        LogSettings(),
        retain_age_s=43_200,
        retain_bytes=50 * 10**9,
        segment_bytes=1 << 20,
        dedup_ids_max=7,
        dedup_age_s=90,
        idle_after_s=0,
    )


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)])
def test_durations_have_a_unit(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "7w", "-1d", "1.5d", "d", "1 d", "9" * 16 + "s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration such as 90s"):
        duration_s(text)


@pytest.mark.parametrize("text", ["", "5XB", "-1", "1.5GB", "GB", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a size such as 256MiB"):
        size_bytes(text)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(LogSettings)])
def test_a_bound_below_its_least_is_refused(field):
    with pytest.raises(ConfigError, match=f"{field}: expected [01] or more, came -1"):
        dataclasses.replace(LogSettings(), **{field: -1}).check()


def test_every_option_is_described_with_its_default():
    described = dict(re.findall(r"^\| `(--[\w-]+)` \| `(\w+)` \|", OPERATE.read_text(encoding="utf-8"), re.MULTILINE))
    options = {action.option_strings[0]: action for action in parser()._actions if action.dest != "help"}
    assert set(described) == set(options)
    for name, default in described.items():
        assert options[name].type(default) == options[name].default, name
