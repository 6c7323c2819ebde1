import dataclasses
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quality import turn
from quality.config import DayConfig
from quality.errors import RunWrong
from quality.run import Run, finish_stage, save_run
from quality.turn import Ticket, break_turn, current, give, take, this_process, waiting

AIRFLOW = {"kind": "airflow", "dag_id": "daily"}


def ticket(name: str, date: str, last_date: str | None = None, **options: object) -> Ticket:
    holder = options.pop("holder", {**AIRFLOW, "run_id": f"manual_{name}"})
    return Ticket.of(
        {"ticket_id": name, "run_id": name, "date": date, "last_date": last_date, "holder": holder, **options}
    )


def publish(config: DayConfig, answer: dict) -> None:
    """What a run leaves that has published its turn's dates."""
    run = Run(answer["run_id"], answer["date"], answer["last_date"])
    save_run(config, run)
    finish_stage(config, run, "publish", {})


def test_the_turn_goes_from_one_to_the_next_in_their_order(config: DayConfig):
    first, second, third = ticket("a", "2011-12-01"), ticket("b", "2011-12-03"), ticket("c", "2011-12-05")
    assert take(config, first) == {
        "turn": "held", "run_id": "a", "date": "2011-12-01", "last_date": "2011-12-01", "companions": [],
    }  # fmt: skip
    for place, each in enumerate((second, third)):
        answer = take(config, each)
        assert (answer["turn"], answer["holder"], answer["holder_run_id"]) == ("wait", first.holder, "a")
        assert answer["place"] == place
    # Asked again, the same; whoever asks first when it is free does not overtake.
    assert take(config, first)["turn"] == "held"
    assert give(config, "a", failed=False)
    assert (take(config, third)["turn"], take(config, third)["holder"]) == ("wait", second.holder)
    assert take(config, second)["turn"] == "held"
    give(config, "b", failed=True)
    assert take(config, third)["turn"] == "held"
    assert not give(config, "b", failed=True)
    give(config, "c", failed=False)
    assert (current(config), waiting(config), os.listdir(config.queue)) == (None, [], [])


def test_neighbours_are_taken_along_and_told_so_once(config: DayConfig):
    take(config, ticket("now", "2011-11-01"))
    asked = {
        "b": ticket("b", "2011-12-02"),
        "gap": ticket("gap", "2011-12-09"),
        "forced": ticket("forced", "2011-12-03", force=True),
        "as_of": ticket("as_of", "2011-12-03", as_of="r1"),
        "alone": ticket("alone", "2011-12-03", shares=False),
        "d": ticket("d", "2011-12-04", "2011-12-05"),
        "c": ticket("c", "2011-12-03"),
        "a": ticket("a", "2011-12-01"),
    }
    for each in asked.values():
        assert take(config, each)["turn"] == "wait"
    give(config, "now", failed=False)
    held = take(config, asked["b"])
    assert (held["date"], held["last_date"], sorted(held["companions"])) == (
        "2011-12-01",
        "2011-12-05",
        ["a", "c", "d"],
    )
    assert take(config, asked["b"]) == held
    # First in line is the first that is not taken along.
    places = {name: take(config, asked[name]).get("place") for name in ("gap", "forced", "a", "c")}
    assert places == {"gap": 0, "forced": 1, "a": 4, "c": 4}
    publish(config, held)
    give(config, "b", failed=False)
    for name in ("a", "c", "d"):
        assert (take(config, asked[name])["turn"], name) == ("shared", name)
    # Told once: whoever asks after that wants the dates run again.
    assert [each.ticket_id for each in waiting(config)] == ["gap", "forced", "as_of", "alone"]
    for name in ("gap", "forced", "as_of", "alone"):
        held = take(config, asked[name])
        assert (held["turn"], held["companions"]) == ("held", [])
        give(config, name, failed=False)


def test_the_companions_of_a_run_that_failed_are_run_alone(config: DayConfig):
    take(config, ticket("now", "2011-11-01"))
    asked = [ticket(name, f"2011-12-0{number}") for number, name in enumerate("abc", 1)]
    for each in asked:
        take(config, each)
    give(config, "now", failed=False)
    assert take(config, asked[0])["companions"] == ["b", "c"]
    give(config, "a", failed=True)
    again = take(config, asked[0])
    assert (again["turn"], again["holder_run_id"]) == ("wait", "b")
    for each in (asked[1], asked[2]):
        held = take(config, each)
        assert (held["date"], held["last_date"], held["companions"]) == (each.date, each.date, [])
        give(config, each.ticket_id, failed=False)
    assert take(config, asked[0])["turn"] == "held"


def test_a_companion_that_leaves_is_not_served(config: DayConfig):
    take(config, ticket("now", "2011-11-01"))
    asked = [ticket(name, f"2011-12-0{number}") for number, name in enumerate("ab", 1)]
    for each in asked:
        take(config, each)
    give(config, "now", failed=False)
    held = take(config, asked[0])
    give(config, "b", failed=True)
    publish(config, held)
    give(config, "a", failed=False)
    assert os.listdir(config.queue) == []


def test_a_holder_that_is_gone_loses_its_turn_and_its_places(config: DayConfig):
    one, two, three = (ticket(name, f"2011-12-0{number}", force=number > 1) for number, name in enumerate("abc", 1))
    for each in (one, two, three):
        take(config, each)
    assert break_turn(config, one.holder)
    assert break_turn(config, two.holder)
    assert not break_turn(config, two.holder)
    assert take(config, three)["turn"] == "held"
    # It had published before it was gone: its companions are served.
    give(config, "c", failed=False)
    for each in (three, two, dataclasses.replace(one, force=True)):
        take(config, each)
    give(config, "c", failed=False)
    held = take(config, two)
    assert held["companions"] == ["a"]
    publish(config, held)
    break_turn(config, two.holder)
    assert take(config, dataclasses.replace(one, force=True))["turn"] == "shared"


def test_a_process_that_died_holds_nothing_up(config: DayConfig):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        holder = {**this_process(), "pid": process.pid, "started": turn._started(process.pid)}
        assert take(config, ticket("a", "2011-12-01", holder=holder))["turn"] == "held"
        assert take(config, ticket("b", "2011-12-05", holder=holder))["turn"] == "wait"
        assert take(config, ticket("c", "2011-12-09"))["turn"] == "wait"
        process.kill()
        process.wait()
        assert take(config, ticket("c", "2011-12-09"))["turn"] == "held"
    # A pid that is used again is another process; a process of another machine cannot be asked.
    give(config, "c", failed=False)
    take(config, ticket("d", "2011-12-01", holder={**this_process(), "started": "1"}))
    assert take(config, ticket("e", "2011-12-05"))["turn"] == "held"
    give(config, "e", failed=False)
    take(config, ticket("f", "2011-12-01", holder={**this_process(), "started": "1", "host": "elsewhere"}))
    assert take(config, ticket("g", "2011-12-05"))["turn"] == "wait"


@pytest.mark.parametrize(
    "content",
    [{}, {"ticket_id": "a", "run_id": "../a", "date": "2011-12-01", "holder": {}},
     {"ticket_id": "a", "run_id": "a", "date": "yesterday", "holder": {}},
     {"ticket_id": "a", "run_id": "a", "date": "2011-12-01"}],
)  # fmt: skip
def test_a_ticket_that_is_none_is_refused(content: dict):
    with pytest.raises(RunWrong, match="expected"):
        Ticket.of(content)


def test_what_is_no_ticket_of_ours_is_passed_over(config: DayConfig):
    config.queue.mkdir(parents=True)
    (config.queue / "000-x.json").write_text("{")
    (config.queue / "001-y.json").write_text('{"ticket_id": 1}')
    assert take(config, ticket("a", "2011-12-01"))["turn"] == "held"
    config.turn.write_text("{")
    with pytest.raises(RunWrong, match="is no turn"):
        take(config, ticket("b", "2011-12-01"))


class Died(Exception):
    """Stands for the end of a process at this very step."""


def crash_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End at the nth change of a file, before or after it is made."""
    steps = itertools.count()
    write, unlink = turn.write_atomically, Path.unlink

    def die() -> None:
        if next(steps) == step:
            raise Died

    def dying_write(path: Path, text: str) -> None:
        die()
        write(path, text)
        die()

    def dying_unlink(path: Path, missing_ok: bool = False) -> None:
        die()
        unlink(path, missing_ok=missing_ok)
        die()

    monkeypatch.setattr(turn, "write_atomically", dying_write)
    monkeypatch.setattr(Path, "unlink", dying_unlink)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_dies_at_any_step_every_ticket_ends_held_or_shared_and_never_two_at_once(
    config: DayConfig, monkeypatch: pytest.MonkeyPatch, seed: int
):
    chance = random.Random(seed)
    tickets = [ticket(f"t{n}", f"2011-12-{chance.randint(1, 9):02}", force=chance.random() < 0.3) for n in range(6)]
    left = {each.ticket_id: each for each in tickets}
    holder: str | None = None
    for _ in range(5000):
        if not left:
            break
        with monkeypatch.context() as patched:
            if chance.random() < 0.5:
                crash_at(chance.randint(0, 5), patched)
            try:
                if holder is not None and chance.random() < 0.4:
                    published = chance.random() < 0.7
                    if published:
                        held = current(config)
                        assert held is not None
                        publish(config, {"run_id": holder, "date": held.date, "last_date": held.last_date})
                    give(config, holder, failed=not published)
                    if published:
                        left.pop(holder, None)
                    holder = None
                    continue
                each = chance.choice(list(left.values()))
                answer = take(config, each)
            except Died:
                # Whoever's process died comes again, as a task that is retried does.
                now = current(config)
                holder = now.ticket.ticket_id if now is not None else None
                continue
        if answer["turn"] == "held":
            assert holder in (None, each.ticket_id), f"seed {seed}"
            holder = each.ticket_id
            assert answer["date"] <= each.date
            assert each.last_date <= answer["last_date"]
        elif answer["turn"] == "shared":
            record = json.loads((config.run_folder(answer["run_id"]) / "run.json").read_text())
            assert record["date"] <= each.date <= each.last_date <= record["last_date"], f"seed {seed}"
            del left[each.ticket_id]
    assert not left, f"seed {seed}"


PROCESS = """
import os, random, sys, time
from pathlib import Path
from quality.config import DayConfig
from quality.run import Run, finish_stage, save_run
from quality.turn import Ticket, _started, give, take, this_process

data, project, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
config = DayConfig(data, project, "localhost:1")
chance = random.Random(number)
for turn in range(4):
    name = f"p{number}-{turn}"
    date = f"2011-12-{chance.randint(1, 20):02}"
    asked = Ticket.of({"ticket_id": name, "run_id": name, "date": date, "last_date": None, "holder": this_process()})
    while (answer := take(config, asked))["turn"] == "wait":
        time.sleep(0.002)
    if answer["turn"] == "shared":
        print("shared", date, answer["run_id"], flush=True)
        continue
    # Nobody else is here, unless it was killed here.
    inside = data / "inside"
    try:
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        other = int(inside.read_text() or 0)
        if _started(other):
            print("TWO", flush=True)
    inside.write_text(str(os.getpid()))
    print("held", answer["date"], answer["last_date"], name, flush=True)
    if chance.random() < 0.15:
        os.kill(os.getpid(), 9)
    failed = chance.random() < 0.3
    if not failed:
        run = Run(name, answer["date"], answer["last_date"])
        save_run(config, run)
        finish_stage(config, run, "publish", {})
    inside.unlink()
    give(config, name, failed=failed)
"""


def test_processes_that_are_killed_and_fail_never_write_at_once(config: DayConfig):
    config.data.mkdir(parents=True)
    command = [sys.executable, "-c", PROCESS, str(config.data), str(config.project)]
    processes = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(5)
    ]
    said = [(process.communicate(timeout=100), process.returncode) for process in processes]
    assert {code for _, code in said} <= {0, -signal.SIGKILL}, said
    lines = [line.split() for (out, _), _ in said for line in out.splitlines()]
    assert ["TWO"] not in lines
    ranges = {name: (first, last) for kind, first, last, name in (line for line in lines if line[0] == "held")}
    for _, date, leader in (line for line in lines if line[0] == "shared"):
        assert ranges[leader][0] <= date <= ranges[leader][1]
    # Nothing of those that were killed stands in the way of the next.
    assert take(config, ticket("next", "2011-12-01"))["turn"] == "held"
