"""heavy.py: passwords and pictures do not wait for each other, and owners take turns."""

import io
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

import heavy
from tests.conftest import form
from tests.pictures import picture
from tests.servers import ROOT, wait_until


class Crowd:
    """Callers that wait in a pool until `go` is set; `done` says who got an answer, in order."""

    def __init__(self, pool: heavy.Pool):
        self.pool, self.go = pool, threading.Event()
        self.threads, self.done, self.refused = [], [], []

    def add(self, owner: str) -> None:
        """Let one more piece of the owner's wait, or be the one that is worked on."""
        before = self.state()
        thread = threading.Thread(target=self.call, args=(owner,))
        thread.start()
        self.threads.append(thread)
        wait_until(lambda: self.state() != before)

    def state(self) -> tuple:
        waiting = {owner: len(pieces) for owner, pieces in self.pool.waiting.items()}
        is_idle = self.pool.count == sum(waiting.values())
        return is_idle, waiting

    def call(self, owner: str) -> None:
        try:
            self.pool.run(self.work, owner, owner=owner)
        except heavy.Busy:
            self.refused.append(owner)

    def work(self, owner: str) -> None:
        self.go.wait()
        self.done.append(owner)

    def end(self) -> None:
        self.go.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def pool(settings):
    """A pool with one thread and four slots."""
    settings.WEB_THREADS, settings.WEB_WORKERS = 4, 1000
    pool = heavy.Pool("test", cores=1, slots=1)
    yield pool
    pool.executor.shutdown()


@pytest.fixture
def crowd(pool):
    """One piece of alice's that is worked on, and two of hers that wait."""
    crowd = Crowd(pool)
    crowd.add("alice")
    wait_until(lambda: not crowd.state()[1])
    crowd.add("alice")
    crowd.add("alice")
    yield crowd
    crowd.end()


def test_heavy_work_returns_what_the_function_does(pool):
    assert pool.run(divmod, 7, 2) == (3, 1)


@pytest.mark.parametrize("error", [ZeroDivisionError, TimeoutError, heavy.Busy])
def test_what_heavy_work_raises_is_raised(pool, error):
    def fail():
        raise error

    with pytest.raises(error):
        pool.run(fail)

    assert pool.count == 0


def test_a_quarter_of_the_threads_never_waits_for_heavy_work():
    assert heavy.passwords.slots + heavy.pictures.slots == 3 / 4


def test_one_more_than_there_are_slots_is_refused(pool, crowd):
    crowd.add("alice")

    with pytest.raises(heavy.Busy):
        pool.run(divmod, 7, 2, owner="alice")

    crowd.end()
    assert (crowd.done, crowd.refused) == (["alice"] * 4, [])
    assert pool.run(divmod, 7, 2) == (3, 1)


def test_who_has_most_waiting_makes_room_for_another(crowd):
    crowd.add("alice")
    crowd.add("bob")

    crowd.end()

    assert (sorted(crowd.done), crowd.refused) == (["alice", "alice", "alice", "bob"], ["alice"])


def test_owners_take_turns(crowd):
    crowd.add("bob")

    crowd.end()

    assert crowd.done == ["alice", "alice", "bob", "alice"]


def test_who_has_waited_too_long_is_refused(pool, crowd, monkeypatch):
    monkeypatch.setattr(heavy, "QUEUE_SECONDS", 0.01)

    with pytest.raises(heavy.Busy):
        pool.run(divmod, 7, 2, owner="bob")

    crowd.end()
    assert pool.count == 0


def test_heavy_work_is_refused_while_the_process_ends(pool):
    pool.executor.shutdown()

    with pytest.raises(heavy.Busy):
        pool.run(divmod, 7, 2)

    assert pool.count == 0


def test_processes_of_one_machine_share_its_cores(settings, monkeypatch):
    settings.WEB_THREADS, settings.WEB_WORKERS = 4, 2
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    # Locks of files tell two pools apart as they do two processes.
    pools = [heavy.Pool("shared", cores=1, slots=1) for _ in range(2)]
    first = Crowd(pools[0])
    first.add("alice")
    wait_until(lambda: not first.state()[1])

    second = Crowd(pools[1])
    second.done = first.done
    second.go.set()
    second.add("bob")
    first.end()
    second.end()

    assert first.done == ["alice", "bob"]
    for pool in pools:
        pool.executor.shutdown()


def test_work_goes_on_where_no_file_can_be_locked(pool, settings, monkeypatch):
    monkeypatch.setattr(pool, "_locked", fail_to_lock)

    assert pool.run(divmod, 7, 2) == (3, 1)


def fail_to_lock(name: str):
    raise OSError


# -- Who waits where ----------------------------------------------------------------------------


def test_passwords_do_not_wait_for_pictures(alice, monkeypatch):
    monkeypatch.setattr(heavy.pictures, "count", 1000)

    drawn = alice.generate()

    assert (drawn.status_code, drawn.json["code"]) == (503, "server_busy")
    assert int(drawn.headers["Retry-After"]) > 0
    alice.log_in()
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 0


def test_accounts_and_networks_take_turns(client, alice, monkeypatch):
    owners = []
    run = heavy.Pool.run

    def noted(self, function, *arguments, owner):
        owners.append((self.name, owner))
        return run(self, function, *arguments, owner=owner)

    monkeypatch.setattr(heavy.Pool, "run", noted)
    client.post(
        "/api/auth/register", data={**form("carol"), "avatar": (io.BytesIO(picture()), "a.png")}
    )
    alice.log_in()
    alice.generate()

    assert owners == [
        ("pictures", "127.0.0.1"),
        ("passwords", "127.0.0.1"),
        ("passwords", "127.0.0.1"),
        ("pictures", str(alice.id)),
    ]


def test_a_core_rests_while_others_wait(pool, monkeypatch):
    rests = []
    clock = SimpleNamespace(sleep=rests.append, monotonic=iter(range(100)).__next__)
    monkeypatch.setattr(heavy, "time", clock)
    pool.rest = 2
    crowd = Crowd(pool)

    crowd.add("alice")
    crowd.add("bob")
    crowd.end()
    pool.executor.shutdown()

    # As long as alice's piece took, twice; after bob's nobody waits.
    assert rests == [2]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such priority")
def test_works_in_a_process_that_has_a_lower_priority_already(tmp_path):
    script = (
        "import os, sys, config, heavy; config.load({'DATA_DIR': sys.argv[1]}); os.nice(15);"
        " os.geteuid() or os.setuid(65534); print(heavy.Pool('', 1, 1).run(lambda: 7))"
    )

    command = [sys.executable, "-c", script, tmp_path]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert ended.stdout == "7\n", ended.stderr
