"""Keeps a data folder from growing for ever: each part of the upkeep by itself, and any of them as often as one likes.

    lake        compacts dates, deletes files that no version needs which a run or the publication is pinned to
    runs        the runs' folders: large files go first, the record last
    docs        the checks' results and their pages
    alerts      old alerts
    leftovers   what runs and imports that died have left: work copies, tickets, temporary files; replaced warehouses
    backup      a backup to TIDEMILL_BACKUP, and the oldest ones away
    log, live   told only: the ingest service bounds its log, its quarantine and its live views by itself
    disk        told: what takes room, what is free, for how long

Every part gives {"what", "removed", "freed_bytes", …}, fit for JSON. What is in use is never touched: the run that has
the turn, runs that wait for it, the publication's run and its pins.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quality import turn
from quality.alerts import raise_alert
from quality.config import DayConfig
from quality.errors import ConfigWrong, QualityError, UpkeepFailed
from quality.landing_ledger import Ledger
from quality.publish import last_published, published_pins
from quality.removing import newest_below, remove, remove_empty
from quality.service import connected
from quality.upkeep_settings import UpkeepSettings
from quality.versions import replaced

DAY_S = 86_400.0
KEPT_LONG = {"run.json", "operations", "run_results", "failed"}
"""Of a run's folder, what is kept as long as its pins; the rest goes after `large_days`."""
RECORD = "run.json"
NEWEST_RUNS = 3
"""So many runs keep everything, however old they are."""
FREE_SHARE_MIN = 0.1
DAYS_LEFT_MIN = 7.0
"""With less room, or for fewer days, an alert is raised."""
BACKUP_TIMEOUT_S = 6 * 3600
_BACKUP_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ")
_TEMPORARY = re.compile(r"\..+\.\d+")


def lake(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Compact the lake's past dates, and delete what no version needs that stays readable, stream by stream.

    Raises UpkeepFailed when a stream's table could not be looked after, after the others were; ServiceFailed.
    """
    chosen, now = _settings(settings), _now(now_s)
    pins, unreadable = pinned_versions(config, chosen.keep_days, now)
    told: dict[str, Any] = {}
    failed: list[str] = []
    with connected(config) as client:
        for status in client.streams():
            if status.lake_uri:
                try:
                    told[status.stream] = _upkeep_of(client, status.stream, pins.get(status.stream, set()), chosen)
                except _sdk_error() as error:
                    failed.append(f"{status.stream}: {error}")
    if failed:
        raise UpkeepFailed(f"the lake of {len(failed)} streams was not looked after: {'; '.join(failed)}", "lake")
    return {
        "what": "lake",
        "removed": sum(each["deleted_files"] + each["deleted_log_files"] for each in told.values()),
        "freed_bytes": sum(each["freed_bytes"] for each in told.values()),
        "streams": told,
        "unreadable_records": unreadable,
    }


def pinned_versions(config: DayConfig, keep_days: float, now_s: float) -> tuple[dict[str, set[int]], list[str]]:
    """Give stream → lake versions that stay: those of runs of the last days, of runs in the making, and published ones.

    And the runs whose record cannot be read, which may have pinned something.
    """
    pins: dict[str, set[int]] = {}
    unreadable = []
    for name, pin in published_pins(config).items():
        pins.setdefault(name, set()).add(pin.lake_version)
    busy = _busy_runs(config)
    for folder in _run_folders(config):
        if folder.name not in busy and now_s - _last_written(folder) > keep_days * DAY_S:
            continue
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            found = {str(name): int(pin["lake_version"]) for name, pin in record["streams"].items()}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            unreadable.append(folder.name)
            continue
        for name, version in found.items():
            pins.setdefault(name, set()).add(version)
    # A run that has sealed and not yet exported has no version: -1.
    return {name: {version for version in versions if version >= 0} for name, versions in pins.items()}, unreadable


def runs(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Thin out the runs' folders by age: large files first, then what was kept of failures, the record at last."""
    chosen, now = _settings(settings), _now(now_s)
    busy = _busy_runs(config)
    folders = sorted(_run_folders(config), key=_last_written, reverse=True)
    removed = freed = whole = 0
    for number, folder in enumerate(folders):
        age_days = (now - _last_written(folder)) / DAY_S
        if folder.name in busy or number < NEWEST_RUNS or age_days <= chosen.large_days:
            whole += 1
            continue
        if age_days > chosen.record_days and age_days > chosen.keep_days:
            doomed = [folder]
        else:
            kept = {RECORD} if age_days > chosen.keep_days else KEPT_LONG
            doomed = [path for path in folder.iterdir() if path.name not in kept]
        for path in doomed:
            freed += remove(path)
            removed += 1
    return {"what": "runs", "removed": removed, "freed_bytes": freed, "runs": len(folders), "kept_whole": whole}


def docs(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Remove old results of checks with their pages, and write the data docs' index anew."""
    chosen, now = _settings(settings), _now(now_s)
    removed = freed = 0
    # <suite>/<run>/<time>, each with what belongs to it below.
    for root in (config.expectations / "results", config.data_docs / "gx" / "validations"):
        for folder in sorted(root.glob("*/*/*")):
            if now - newest_below(folder) > chosen.docs_days * DAY_S:
                freed += remove(folder)
                removed += 1
        remove_empty(root)
    left = sorted(root.name for root in (config.expectations / "results").glob("*/*"))
    if removed:
        _write_index(config, left)
    return {"what": "docs", "removed": removed, "freed_bytes": freed, "runs": len(set(left))}


def alerts(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Remove old alerts; the warehouse keeps them."""
    chosen, now = _settings(settings), _now(now_s)
    files = list(config.alerts.glob("*.json")) if config.alerts.is_dir() else []
    doomed = [file for file in files if now - file.stat().st_mtime > chosen.alerts_days * DAY_S]
    freed = sum(remove(file) for file in doomed)
    return {"what": "alerts", "removed": len(doomed), "freed_bytes": freed, "kept": len(files) - len(doomed)}


def leftovers(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Remove what runs and imports have left that died: work copies, copies of files, tickets, temporary files."""
    chosen, now = _settings(settings), _now(now_s)
    oldest = now - chosen.leftover_days * DAY_S
    busy = _busy_runs(config)
    doomed = [path for path in _in(config.warehouse.parent / "work") if path.name not in busy]
    doomed += _in(Ledger(config).work)
    folders = (config.queue, config.warehouse.parent, config.alerts, Ledger(config).root, *_run_folders(config))
    doomed += [path for folder in folders for path in _in(folder) if _TEMPORARY.fullmatch(path.name)]
    doomed += _served_tickets(config)
    doomed = [path for path in doomed if newest_below(path) < oldest] + replaced(config, now_s=now)
    freed = sum(remove(path) for path in doomed)
    return {"what": "leftovers", "removed": len(doomed), "freed_bytes": freed, "paths": sorted(map(str, doomed))[:100]}


def backup(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Make a backup beside the running service, then remove the oldest ones beyond those to be kept.

    Nothing is removed when no backup could be made. Raises UpkeepFailed.
    """
    del now_s
    chosen = _settings(settings)
    if chosen.backup is None:
        return {"what": "backup", "removed": 0, "freed_bytes": 0, "skipped": "TIDEMILL_BACKUP is not set"}
    made = _data_tool("backup", config, "--", str(chosen.backup))
    whole = sorted(
        path
        for path in chosen.backup.iterdir()
        if _BACKUP_NAME.fullmatch(path.name) and (path / "manifest.json").is_file()
    )
    freed = 0
    for path in (doomed := whole[: -chosen.backups]):
        # Under this name it is none any more; the next backup removes what is left of it after a crash.
        gone = path.with_name(f"{path.name}.unfinished")
        path.rename(gone)
        freed += remove(gone)
    return {"what": "backup", "removed": len(doomed), "freed_bytes": freed, "kept": len(whole) - len(doomed), **made}


def log(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Tell how large each stream's log is; the service drops its old segments every minute. Raises ServiceFailed."""
    del settings, now_s
    with connected(config) as client:
        streams = {
            status.stream: {
                "bytes": status.log_bytes,
                "segments": status.segments,
                "first_offset": status.log_start_offset,
                "next_offset": status.durable_offset,
                "lake_offset": status.lake_offset,
            }
            for status in client.streams()
        }
    total = sum(each["bytes"] for each in streams.values())
    return {"what": "log", "removed": 0, "freed_bytes": 0, "bytes": total, "streams": streams}


def live(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Tell how large the live store is, where it is in the data folder; the service bounds it. Raises ServiceFailed."""
    del settings, now_s
    store = config.data / "live"
    size = sum(path.stat().st_size for path in store.glob("live.sqlite*")) if store.is_dir() else 0
    with connected(config) as client:
        views = [view.view for view in client.views()]
    return {"what": "live", "removed": 0, "freed_bytes": 0, "bytes": size, "views": views}


def disk(config: DayConfig, settings: UpkeepSettings | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Tell what takes room and for how long there is some; raise an alert when that is not for long."""
    del settings, now_s
    usage = _data_tool("usage", config)
    parts = sorted(usage["parts"], key=lambda part: -part["bytes"])
    days = usage["days_left"]
    result = {
        "what": "disk",
        "removed": 0,
        "freed_bytes": 0,
        "bytes": usage["total"],
        "free_bytes": usage["free"],
        "days_left": days,
        "unsure": usage["unsure"],
        "largest": [{"name": part["name"], "bytes": part["bytes"]} for part in parts[:10]],
        "warning": "",
    }
    short = usage["free"] < FREE_SHARE_MIN * usage["disk"]
    if short or (days is not None and days < DAYS_LEFT_MIN):
        lasts = "" if days is None else f", which lasts for {days:.0f} days as it grows now"
        result["warning"] = (
            f"{usage['free'] / 1e9:,.1f} GB are free of {usage['disk'] / 1e9:,.1f} GB{lasts}; the largest part is "
            f"{parts[0]['name'] if parts else 'none'}. `tidemill data usage` says more"
        )
        raise_alert(config, "disk", "maintain", "", "disk", str(result["warning"]))
    return result


PARTS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "lake": lake,
    "runs": runs,
    "docs": docs,
    "alerts": alerts,
    "leftovers": leftovers,
    "backup": backup,
    "log": log,
    "live": live,
    "disk": disk,
}
"""Every part by its name; none depends on another."""


def maintain(
    config: DayConfig, settings: UpkeepSettings | None = None, parts: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Do all parts, or those named, one after another; one that fails gives {"what", "error"} and stops no other."""
    import duckdb

    for name in parts or PARTS:
        try:
            yield PARTS[name](config, settings)
        except (QualityError, OSError, duckdb.Error) as error:
            yield {"what": name, "error": " ".join(str(error).split()), "removed": 0, "freed_bytes": 0}


def _upkeep_of(client: Any, stream: str, versions: set[int], settings: UpkeepSettings) -> dict[str, Any]:
    done = client.maintain_lake(
        stream, keep_versions=sorted(versions)[-1000:], min_age_s=int(settings.lake_days * DAY_S)
    )
    return {
        "compacted": [str(date) for date in done.compacted],
        "deleted_files": done.deleted_files,
        "deleted_log_files": done.deleted_log_files,
        "freed_bytes": done.freed_bytes,
        "files": done.files,
        "bytes": done.bytes,
        "kept_files": done.kept_files,
        "kept_bytes": done.kept_bytes,
        "kept_versions": sorted(versions - set(done.missing_versions)),
        "missing_versions": list(done.missing_versions),
    }


def _sdk_error() -> type[Exception]:
    import tidemill

    return tidemill.ServiceError


def _settings(settings: UpkeepSettings | None) -> UpkeepSettings:
    return settings or UpkeepSettings.from_environment()


def _now(now_s: float | None) -> float:
    return time.time() if now_s is None else now_s


def _busy_runs(config: DayConfig) -> set[str]:
    """The runs that have the turn or wait for it, and the one that has published last."""
    busy = {ticket.run_id for ticket in turn.waiting(config)}
    holder = turn.current(config)
    if holder is not None:
        busy |= {holder.ticket.run_id, *(companion.run_id for companion in holder.companions)}
    published = last_published(config)
    return busy | ({published["run_id"]} if published else set())


def _served_tickets(config: DayConfig) -> list[Path]:
    """Tickets of runs that others have published for, and that never came back for the news."""
    found = []
    for file in _in(config.queue):
        try:
            if json.loads(file.read_text(encoding="utf-8")).get("state") == turn.SERVED:
                found.append(file)
        except (OSError, ValueError, AttributeError):
            continue
    return found


def _write_index(config: DayConfig, runs_left: list[str]) -> None:
    from quality.report_page import write_report

    if runs_left:
        write_report(config, max(runs_left))


def _data_tool(tool: str, config: DayConfig, *arguments: str) -> dict[str, Any]:
    """Run one of the service's tools for a data folder, as a process of its own; what it said."""
    # -P: the folder that it runs in must not hide a module.
    command = [sys.executable, "-P", "-m", "ingest_service.data", tool, "--data", str(config.data), "--json"]
    command += arguments
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=BACKUP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UpkeepFailed(f"the {tool} took longer than {BACKUP_TIMEOUT_S / 3600:g} hours", tool) from error
    if ended.returncode:
        raise UpkeepFailed(f"the {tool} failed: {ended.stderr.strip()[-2000:]}", tool)
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def _run_folders(config: DayConfig) -> list[Path]:
    return [path for path in _in(config.runs) if path.is_dir() and not path.is_symlink()]


def _in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _last_written(folder: Path) -> float:
    """When a run's record was last written; without one, when anything in its folder was."""
    try:
        return (folder / RECORD).stat().st_mtime
    except FileNotFoundError:
        return newest_below(folder)


def main(arguments: list[str] | None = None) -> int:
    """`python -m quality.upkeep [PART]…`: do all parts, or those; one JSON object a line. 1 when any failed."""
    named = sys.argv[1:] if arguments is None else arguments
    unknown = [name for name in named if name not in PARTS]
    try:
        if unknown:
            raise ConfigWrong(f"expected parts of {', '.join(PARTS)}; came {', '.join(unknown)}")
        config, settings = DayConfig.from_environment(), UpkeepSettings.from_environment()
    except QualityError as error:
        print(f"tidemill: {error}", file=sys.stderr)  # noqa: T201 - the command's own message
        return 2
    failed = False
    for result in maintain(config, settings, dict.fromkeys(named)):
        print(json.dumps(result), flush=True)  # noqa: T201 - the command's output
        failed = failed or "error" in result
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
