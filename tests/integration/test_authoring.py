"""What an author of live models does all day, by the real command line: check them, test them, apply them."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest_service.contracts import load_contracts
from ingest_service.live.trial.events import EventMaker
from ingest_service.live.trial.hints import Hints
from ingest_service.live.trial.log import TrialLog
from tidemill import testing
from tidemill.cli import main
from tidemill.local.folder import DataFolder
from tidemill.local.live_models import COMPILE

pytest.importorskip("dbt")
ROOT = Path(__file__).parents[2]
BY_REGION = """{{ config(materialized='table', tags=['live']) }}
select regions.region, count(*) as lines, sum(order_lines.quantity) as units
from {{ source('events', 'order_lines') }} as order_lines
left join {{ ref('regions') }} as regions on order_lines.country = regions.country
group by all
"""
MEDIAN = """{{ config(materialized='table', tags=['live']) }}
select
    country,
    median(quantity) as middle
from {{ source('events', 'order_lines') }}
group by country
"""
SEED_YML = "seeds: [{name: regions, config: {column_types: {country: varchar, region: varchar}}}]\n"
CSV = """Id,InvoiceNo,StockCode,Quantity,UnitPrice,When,Country
1,536365,85123A,6,2.550,2011-12-05 08:26:00,France
2,536365,71053,0,3.390,2011-12-05 08:26:00,France
3,C536366,71053,-2,1.000,2011-12-05 08:27:00,Peru
4,536367,71053,2,1.450,2011-12-05 08:28:00,France
"""
Command = Callable[..., tuple[int, str, str]]


def cut_out_project(folder: Path) -> Path:
    """A project of two live models, one of which joins a seed."""
    models = folder / "dbt_project"
    shutil.copytree(ROOT / "proto", folder / "proto")
    for file in (
        "dbt_project.yml", "profiles.yml", "models/sources/order_lines.yml", "models/live/sales_by_minute.sql",
    ):  # fmt: skip
        (models / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "dbt_project" / file, models / file)
    shutil.copytree(ROOT / "dbt_project" / "macros", models / "macros")
    (models / "seeds").mkdir()
    (models / "seeds" / "regions.csv").write_text("country,region\nFrance,Europe\nPeru,America\n")
    (models / "seeds" / "regions.yml").write_text(SEED_YML)
    (models / "models" / "live" / "by_region.sql").write_text(BY_REGION)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that no test changes; it is compiled by the first one."""
    return cut_out_project(tmp_path_factory.mktemp("authoring"))


@pytest.fixture
def own_project(project: Path, tmp_path: Path) -> Path:
    """A copy of it to be changed, compiled as far as it is."""
    return Path(shutil.copytree(project, tmp_path / "own"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in a project; gives exit code, stdout and stderr."""
    for name in ("TIDEMILL_DATA", "TIDEMILL_PROJECT", "TIDEMILL_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(place: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(place)
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def live(project: Path, model: str) -> Path:
    return project / "dbt_project" / "models" / "live" / f"{model}.sql"


def test_check_says_what_each_view_would_be(project: Path, command: Command) -> None:
    code, out, err = command(project, "view", "check")
    assert (code, err) == (0, "")
    assert "fine    by_region: one row a region of order_lines" in out
    assert "fine    sales_by_minute: one row a window_start, country of order_lines" in out
    assert "start of the window of 1 minute" in out
    assert not DataFolder(project / ".tidemill").manifest.exists(), "nothing was put in force"
    code, out, _ = command(project, "view", "check", "sales_by_minute", "--json")
    (line,) = lines(out)
    assert (code, line["model"]) == (0, "sales_by_minute")
    assert {column["name"]: column["compared"] for column in line["columns"]}["revenue"] == "equal"


def test_check_names_the_place_of_what_is_refused(own_project: Path, command: Command) -> None:
    live(own_project, "middle").write_text(MEDIAN)
    code, out, _ = command(own_project, "view", "check")
    assert code == 1
    assert "refused middle: dbt_project/models/live/middle.sql:4:5\n" in out
    assert "fine    by_region" in out
    code, out, _ = command(own_project, "view", "check", "middle", "--json")
    (line,) = lines(out)
    assert (code, line["file"], line["line"], line["column"]) == (1, "models/live/middle.sql", 4, 5)
    assert command(own_project, "view", "check", "by_region")[0] == 0, "only what was asked for counts"


def test_what_dbt_refuses_is_said_in_dbts_words(own_project: Path, command: Command) -> None:
    live(own_project, "broken").write_text("{{ config(tags=['live']) }} select * from {{ ref('nowhere') }}")
    for arguments in (("view", "check"), ("test",)):
        code, _, err = command(own_project, *arguments)
        assert code == 1
        assert "dbt could not compile the live models" in err
        assert "nowhere" in err


def test_a_model_is_tested_over_made_up_events(project: Path, command: Command) -> None:
    code, out, err = command(project, "test", "by_region", "--seed", "5", "--rows", "400")
    assert (code, err) == (0, "")
    assert "order_lines: 400 events made up by the contract (again: --seed 5 --rows 400 --made-up)" in out
    assert "agrees  by_region: " in out
    file = str(live(project, "by_region").relative_to(project))
    code, out, _ = command(project, "test", file, "--seed", "5", "--rows", "400", "--json")
    stream, model = lines(out)
    assert (code, stream["stream"], stream["rows"]) == (0, "order_lines", 400)
    assert model["agrees"]
    assert model["model"] == "by_region"
    assert model["events"] == 400
    log = DataFolder(project / ".tidemill").log(COMPILE).read_text(encoding="utf-8")
    assert log.count("Running with dbt") == 1, "nothing has changed since the first compile"


def test_all_models_are_tested_where_none_is_named(project: Path, command: Command) -> None:
    code, out, _ = command(project, "test", "--rows", "200", "--json")
    assert code == 0
    assert [line["model"] for line in lines(out) if "model" in line] == ["by_region", "sales_by_minute"]


def test_events_of_a_file_are_taken(project: Path, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "till.csv"
    file.write_text(CSV)
    given = ["--input", str(file), "--timezone", "UTC", "--map", "event_id=r{Id}", "--map", "invoiced_at=When"]
    code, out, _ = command(project, "test", "by_region", *given)
    assert code == 0
    assert f"order_lines: 3 events of {file} " in out
    assert "1 others break the contract" in out
    assert "agrees  by_region: 2 rows at the end" in out
    code, out, _ = command(project, "test", "by_region", *given, "--rows", "1", "--json")
    assert lines(out)[0]["rows"] == 1
    code, _, err = command(project, "test", "by_region", "--input", str(file), "--timezone", "UTC")
    assert code == 1
    assert "has no column for event_id" in err


def test_the_newest_events_of_the_lake_are_taken(own_project: Path, command: Command) -> None:
    import deltalake

    contract = load_contracts(own_project / "proto").contracts["order_lines"]
    events = TrialLog(contract.log_spec(), EventMaker(contract, Hints(), random.Random(1)).table(300))
    table = str(own_project / ".tidemill" / "lake" / "order_lines")
    deltalake.write_deltalake(table, events.rows, partition_by=["event_date"])
    code, out, _ = command(own_project, "test", "by_region", "--rows", "120", "--seed", "3")
    assert code == 0
    assert "order_lines: the newest 120 events of the lake (again: --seed 3 --rows 120)" in out
    _, out, _ = command(own_project, "test", "by_region", "--rows", "120", "--made-up")
    assert "120 events made up" in out


def test_a_wrong_merge_ends_in_exit_code_1(
    project: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is planted into the process that runs the trial: each merge forgets what was there before."""
    fault = tmp_path / "fault"
    fault.mkdir()
    (fault / "sitecustomize.py").write_text(
        "from ingest_service.live.session import MergeSession\n"
        "merge = MergeSession.merge\n"
        "MergeSession.merge = lambda self, states, *rest, **more: merge(self, [*states, states[0]], *rest, **more)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(fault))
    code, out, _ = command(project, "test", "by_region", "--rows", "300", "--seed", "2")
    assert code == 1
    assert "differs by_region (dbt_project/models/live/by_region.sql): " in out
    assert ": units: live " in out or ": lines: live " in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("test", "no_such_model"), 1, "there is no live model no_such_model; the live models are: by_region, "),
        (("view", "check", "no_such_model"), 1, "there is no live model no_such_model"),
        (("test", "--map", "a=b"), 2, "--map and --timezone say how --input is read"),
        (("test", "--rows", "0"), 2, "--rows"),
        (("test", "by_region", "--input", "no_such_file.csv"), 1, "no_such_file.csv"),
    ],
)
def test_what_is_wrong_is_one_line(
    project: Path, command: Command, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, out, err = command(project, *arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.fixture
def service(own_project: Path) -> Iterator[str]:
    """The ingest service of the project, without any live view; gives its address."""
    with testing.service(own_project / "proto") as client:
        yield client.address


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


def test_models_are_applied_changed_and_removed(
    own_project: Path, command: Command, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("--address", service)
    code, out, _ = command(own_project, "view", "apply", "--check-only", *there)
    assert code == 0
    assert "added   by_region: built from the first event on" in out
    assert command(own_project, "view", "list", "--json", *there)[1] == "", "nothing has happened"
    code, out, _ = command(own_project, "view", "apply", "--wait", *there)
    assert code == 0
    assert "by_region serves 0 events" in out
    live(own_project, "sales_by_minute").unlink()
    live(own_project, "by_region").write_text(BY_REGION.replace("count(*) as lines", "count(*) + 1 as lines"))
    live(own_project, "middle").write_text(MEDIAN)
    code, out, _ = command(own_project, "view", "check", "by_region", *there)
    assert code == 0
    assert f"in the service at {service}:" in out
    assert "changed by_region: rebuilt from the first event on while the old one serves" in out
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    code, _, err = command(own_project, "view", "apply", *there)
    assert code == 1
    assert "sales_by_minute: no longer among the models" in err
    assert "nothing was applied" in err
    code, out, _ = command(own_project, "view", "apply", "--wait", "--json", *there)
    assert code == 1
    changes = {line["view"]: line["change"] for line in lines(out)}
    assert changes == {"by_region": "changed", "middle": "refused", "sales_by_minute": "removed"}
    left = {line["view"]: line["state"] for line in lines(command(own_project, "view", "list", "--json", *there)[1])}
    assert left["by_region"] == "following"
    assert "sales_by_minute" not in left
