"""API keys: what they allow, how they are kept, and how a running service follows."""

import datetime as dt
import json
import os
import stat

import pytest
from support.logs import SetClock

from ingest_service.access import KEY_FILE, ApiKey, KeyFile, Keyring, Right
from ingest_service.access.__main__ import main
from ingest_service.access.key import SECRET_PATTERN, new_key, split_key
from ingest_service.access.keyring import LOOK_AGAIN_S
from ingest_service.errors import ConfigError, Unauthenticated

NOW = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def make(name="shop", streams=("orders",), rights=(Right.WRITE,), expires_at=None) -> tuple[ApiKey, str]:
    return new_key(name, frozenset(streams), frozenset(rights), NOW, expires_at)


def test_a_key_knows_its_secret_and_no_other():
    key, text = make()
    key_id, secret = split_key(text)
    assert key_id == key.id
    assert key.is_its_secret(secret)
    for other in (secret[:-1], secret + "x", secret.swapcase(), "", "\udcff"):
        assert not key.is_its_secret(other)
    assert secret not in repr(key) + json.dumps(key.to_json())


@pytest.mark.parametrize("text", ["", "tm", "tm_", "tm_abc", "tm_abc_", "xx_abc_secret", "Bearer", "tm abc secret"])
def test_what_is_no_key_is_none(text):
    assert split_key(text) is None


def test_a_key_is_found_in_text():
    key, text = make()
    assert SECRET_PATTERN.search(f"metadata: Bearer {text}, next")[1] == key.id


def test_a_key_allows_its_rights_on_its_streams():
    key, _ = make(streams=("orders", "returns"), rights=(Right.WRITE,))
    assert key.allows(Right.WRITE, "orders")
    assert key.allows(Right.WRITE, "returns")
    assert not key.allows(Right.READ, "orders")
    assert not key.allows(Right.WRITE, "payments")
    assert key.allows(None, "orders")
    assert not key.allows(None, "payments")
    every, _ = make(streams=("*",), rights=(Right.READ, Right.ADMIN))
    assert every.allows(Right.ADMIN, "whatever comes")
    assert not every.allows(Right.WRITE, "orders")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "expected a key's name"),
        ({"name": "a b"}, "expected a key's name"),
        ({"name": "x" * 64}, "expected a key's name"),
        ({"streams": ()}, "could do nothing"),
        ({"rights": ()}, "could do nothing"),
        ({"expires_at": NOW}, "expired already"),
    ],
)
def test_a_key_that_could_do_nothing_is_not_made(options, said):
    with pytest.raises(ConfigError, match=said):
        make(**options)


def test_the_file_is_its_owners_alone_and_holds_no_secret(tmp_path):
    file = KeyFile(tmp_path)
    assert not file.exists()
    assert file.read() == []
    key, text = make(expires_at=NOW + dt.timedelta(days=1))
    with file.changing() as keys:
        keys.append(key)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert split_key(text)[1] not in file.path.read_text()
    assert file.read() == [key]


def test_a_change_that_fails_changes_nothing(tmp_path):
    file = KeyFile(tmp_path)
    with file.changing() as keys:
        keys.append(make()[0])
    before = file.path.read_bytes()

    def fail() -> None:
        with file.changing() as keys:
            keys.clear()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert file.path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": []}', '{"format": 1, "keys": [{}]}', '{"format": 1, "keys": [{"id": 1}]}', "ÿ"]
)
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / KEY_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match="no file of API keys"):
        KeyFile(tmp_path).read()


def test_another_releases_file_is_refused(tmp_path):
    (tmp_path / KEY_FILE).write_text('{"format": 2, "keys": []}')
    with pytest.raises(ConfigError, match="expected format 1"):
        KeyFile(tmp_path).read()


class Ring:
    """A keyring over a folder with one key, and a clock to set."""

    def __init__(self, folder) -> None:
        self.clock = SetClock(int(NOW.timestamp() * 1e6))
        self.file = KeyFile(folder)
        self.key, self.text = self.add("shop")
        self.ring = Keyring(folder, self.clock)

    def add(self, name, **options) -> tuple[ApiKey, str]:
        key, text = make(name, **options)
        with self.file.changing() as keys:
            keys.append(key)
        return key, text

    def wait(self, seconds=LOOK_AGAIN_S) -> None:
        self.clock.us += int(seconds * 1e6)

    def knows(self, text) -> bool:
        try:
            self.ring.authenticate(f"Bearer {text}")
        except Unauthenticated:
            return False
        return True


@pytest.fixture
def ring(tmp_path) -> Ring:
    return Ring(tmp_path)


def test_a_valid_key_is_found(ring):
    assert ring.ring.authenticate(f"Bearer {ring.text}") == ring.key
    assert ring.ring.authenticate(f"bearer  {ring.text} ") == ring.key


def test_what_is_no_valid_key_is_refused_without_a_word_about_it(ring):
    wrong = [ring.text[:-1], ring.text + "a", f"tm_{ring.key.id}_", "tm_000000000000_abc", "", "ü", "tm__"]
    said = set()
    for text in [f"Bearer {each}" for each in wrong] + [ring.text, f"Basic {ring.text}", "Bearer"]:
        with pytest.raises(Unauthenticated) as caught:
            ring.ring.authenticate(text)
        said.add(str(caught.value))
    assert len(said) == 1, "the answer tells which part was right"
    assert ring.key.id not in said.pop()
    for nothing in (None, ""):
        with pytest.raises(Unauthenticated, match="came none"):
            ring.ring.authenticate(nothing)


def test_a_new_key_counts_and_a_revoked_one_does_not(ring):
    _, text = ring.add("other")
    ring.wait()
    assert ring.knows(text)
    with ring.file.changing() as keys:
        keys.remove(ring.key)
    ring.wait()
    assert not ring.knows(ring.text)
    assert not ring.ring.is_valid(ring.key)
    assert ring.knows(text)


def test_a_new_key_counts_at_once_and_a_revoked_one_does_not_for_long(ring):
    _, text = ring.add("other")
    assert ring.knows(text)
    with ring.file.changing() as keys:
        keys.remove(ring.key)
    ring.wait(LOOK_AGAIN_S / 2)
    assert ring.knows(ring.text), "the file is not looked at for every call"
    ring.wait(LOOK_AGAIN_S / 2)
    assert not ring.knows(ring.text)


def test_a_key_ends_at_its_time(ring):
    key, text = ring.add("brief", expires_at=NOW + dt.timedelta(hours=1))
    ring.wait(3599)
    assert ring.knows(text)
    assert len(ring.ring) == 2
    ring.wait(1)
    assert not ring.knows(text)
    assert not ring.ring.is_valid(key)
    assert len(ring.ring) == 1


def test_a_file_that_is_damaged_leaves_the_keys_as_they_were(ring, caplog):
    ring.file.path.write_text("{")
    ring.wait()
    assert ring.knows(ring.text)
    for _ in range(3):
        assert not ring.knows("tm_000000000000_abc")
    assert caplog.text.count("stay in force") == 1, "whoever has no key fills the log"


def test_a_file_that_is_gone_opens_nothing(ring):
    ring.file.path.unlink()
    ring.wait()
    assert not ring.knows(ring.text)
    with pytest.raises(Unauthenticated):
        ring.ring.authenticate(None)


def test_the_tool_shows_the_key_once(tmp_path, capsys):
    data = f"--data={tmp_path}"
    assert main(["create", data, "--stream=orders", "--allow=write", "--allow=read", "--expires=90d", "shop"]) == 0
    out, err = capsys.readouterr()
    text = out.strip()
    assert split_key(text) is not None
    assert text not in err
    assert "first key" in err
    assert main(["create", data, "--stream=*", "--allow=admin", "--json", "daily"]) == 0
    daily = json.loads(capsys.readouterr().out)
    assert (daily["streams"], daily["allow"], daily["expires_at"]) == (["*"], ["admin"], None)
    assert main(["list", data, "--json"]) == 0
    listed = capsys.readouterr().out
    assert [json.loads(line)["name"] for line in listed.splitlines()] == ["shop", "daily"]
    assert "sha256" not in listed
    assert split_key(text)[1] not in listed
    assert main(["revoke", data, "shop"]) == 0
    assert [key.name for key in KeyFile(tmp_path).read()] == ["daily"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--stream=s", "--allow=read", "daily"], "there is a key named 'daily'"),
        (["create", "--stream=s", "--allow=read", "--expires=3w", "other"], "12h or 90d"),
        (["create", "--stream=s", "--allow=read", "--data=/nowhere", "other"], "no folder"),
        (["revoke", "nobody"], "there is no key 'nobody'"),
    ],
)
def test_the_tool_says_what_is_wrong(tmp_path, capsys, arguments, said):
    assert main(["create", f"--data={tmp_path}", "--stream=*", "--allow=admin", "daily"]) == 0
    assert main([arguments[0], f"--data={tmp_path}", *arguments[1:]]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_made_by_root_it_is_the_folders_owners(tmp_path):
    os.chown(tmp_path, 1234, 1234)
    with KeyFile(tmp_path).changing() as keys:
        keys.append(make()[0])
    assert (tmp_path / KEY_FILE).stat().st_uid == 1234
