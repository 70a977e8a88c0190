"""The life of a generation as its owner sees it: submit, watch, cancel, retry, delete."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

import config
import db
import logs
from accounts import registration, users
from engines import PermanentError, TransientError, painter
from files import cleanup, storage
from images import jobs, queue, queue_status, results, trash, waiting
from images import quota as quotas
from tests.pictures import opened

GENERATE = "/api/v1/images/generate"


def submit(person, prompt: str = "a fox", key: str | None = None, **body):
    headers = {"Idempotency-Key": key} if key else {}
    small = {"width": 64, "height": 64, "steps": 2}
    return person.post(GENERATE, json={"prompt": prompt, **small, **body}, headers=headers)


def next_generation(models):
    """The generation whose turn it is, or None."""
    waiting.count_new()
    return next(iter(waiting.next_ids(models)), None)


def submit_one(person, **body) -> int:
    return submit(person, **body).json["data"]["records"][0]["id"]


def work(times: int = 100) -> None:
    """Do what a worker does, in this process, until nothing waits."""
    for _ in range(times):
        job = jobs.acquire(["test_model"])
        if not job:
            return
        run_unless_lost(job)


def run_unless_lost(job: dict) -> None:
    with suppress(jobs.ClaimLost):
        jobs.run(job)


def record(person, number: int) -> dict:
    return person.get(f"/api/v1/images/{number}").json["data"]


def quota(person) -> dict:
    return person.get("/api/v1/images/quota").json["data"]


# -- Submit -------------------------------------------------------------------------------------


def test_submit_answers_202_with_the_waiting_records(alice):
    response = submit(alice, n=3, seed=10)

    records = response.json["data"]["records"]
    assert response.status_code == 202
    assert response.headers["Location"] == f"/api/v1/images/{records[0]['id']}"
    assert int(response.headers["Retry-After"]) > 0
    assert [(record["status"], record["params"]["seed"]) for record in records] == [
        ("pending", 10), ("pending", 11), ("pending", 12),
    ]  # fmt: skip


def test_a_worker_makes_what_was_submitted(alice):
    number = submit_one(alice, seed=5, width=200, height=100)

    work()

    done = record(alice, number)
    assert (done["status"], done["progress"], done["params"]["seed"]) == ("completed", 100, 5)
    assert done["startedAt"] and done["finishedAt"]
    assert opened(alice.get(done["imageUrl"]).data).size == (200, 100)
    assert opened(alice.get(done["thumbnailUrl"]).data).size == (200, 100)


def test_a_seed_is_chosen_and_recorded_when_none_is_given(alice):
    seeds = [record["params"]["seed"] for record in submit(alice, n=4).json["data"]["records"]]

    assert seeds == list(range(seeds[0], seeds[0] + 4)) and seeds[3] < 2**31


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": " "}, "prompt"),
        ({"model": "dall-e"}, "model"),
        ({"width": 10}, "width"),
        ({"height": 5000}, "height"),
        ({"steps": 0}, "steps"),
        ({"guidance": 7}, "guidance"),
        ({"seed": "x"}, "seed"),
        ({"n": 5}, "n"),
        ({"n": True}, "n"),
        ({"sampler": "euler"}, "sampler"),
        ({"negative_prompt": "x" * 2001}, "negative_prompt"),
    ],
)
def test_a_wrong_field_is_named(alice, body, field):
    response = submit(alice, **body)

    assert response.status_code == 400
    assert list(response.json["fields"]) == [field]


def test_the_same_key_and_body_again_create_nothing(alice):
    first, again = submit(alice, key="k", n=2), submit(alice, key="k", n=2)

    assert first.json["data"]["records"] == again.json["data"]["records"]
    assert (again.status_code, alice.history()["pagination"]["total"]) == (202, 2)


def test_the_same_key_with_another_body_is_refused(alice):
    submit(alice, key="k")

    response = submit(alice, "a hen", key="k")

    assert (response.status_code, response.json["code"]) == (409, "key_reused")


def test_a_key_belongs_to_one_account(alice, bob):
    assert submit_one(alice, key="k") != submit_one(bob, key="k")


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 101])
def test_a_strange_key_is_named(alice, key):
    response = alice.post(GENERATE, json={"prompt": "a fox"}, headers={"Idempotency-Key": key})

    assert list(response.json["fields"]) == ["Idempotency-Key"]


def test_one_key_sent_many_times_at_once_creates_one_generation(alice):
    threads = [threading.Thread(target=submit, args=(alice, "a fox", "k")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert alice.history()["pagination"]["total"] == 1


@pytest.mark.parametrize(
    "end",
    [lambda user: users.set_disabled(user, True), lambda user: users.set_password(user, "x")],
)
def test_a_session_that_ended_submits_nothing(alice, end):
    end(alice.id)

    assert (submit(alice).status_code, submit(alice).json["code"]) == (401, "token_invalid")
    assert db.value("SELECT COUNT(*) FROM image_generations") == 0


def test_a_deleted_account_submits_nothing(alice):
    registration.delete_account(users.get_user(alice.id))

    assert submit(alice).json["code"] == "token_invalid"


# -- Limits -------------------------------------------------------------------------------------


def test_one_generation_too_many_is_refused(alice, settings):
    settings.MAX_ACTIVE_JOBS = 2
    submit(alice, n=2)

    response = submit(alice)

    assert (response.status_code, response.json["code"]) == (429, "too_many_active_jobs")
    assert int(response.headers["Retry-After"]) > 0


def test_the_last_place_in_the_quota_is_reserved_once(alice, settings):
    settings.MAX_ACTIVE_JOBS = 3
    threads = [threading.Thread(target=submit, args=(alice,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert alice.history()["pagination"]["total"] == 3


def test_what_has_ended_makes_room(alice, settings):
    settings.MAX_ACTIVE_JOBS = 3
    completed, canceled, deleted = (submit_one(alice) for _ in range(3))
    jobs.run(jobs.claim(completed))
    alice.post(f"/api/v1/images/{canceled}/cancel")
    alice.open("DELETE", f"/api/v1/images/{deleted}")

    assert [submit(alice).status_code for _ in range(4)] == [202, 202, 202, 429]


def test_a_key_used_again_reserves_no_quota(alice, settings):
    settings.MAX_ACTIVE_JOBS = settings.DAILY_IMAGES = 3
    for _ in range(5):
        submit(alice, key="k")

    assert [submit(alice).status_code for _ in range(3)] == [202, 202, 429]
    assert submit(alice, key="k").status_code == 202


def test_unfinished_rows_that_nobody_counted_count(alice, settings):
    settings.MAX_ACTIVE_JOBS = 2
    for _ in range(2):
        db.insert(
            "image_generations",
            user_id=alice.id,
            prompt_text="old",
            status="pending",
            model="test_model",
        )

    assert submit(alice).json["code"] == "too_many_active_jobs"


def test_a_refusal_names_its_reason(alice, settings):
    settings.MAX_ACTIVE_JOBS, settings.DAILY_IMAGES, settings.MAX_QUEUE = 2, 3, 2
    submit(alice, n=2)

    codes = []
    for settings.DAILY_IMAGES, settings.MAX_ACTIVE_JOBS in ((3, 9), (9, 2), (9, 9)):
        codes.append(submit(alice, n=2).json["code"])
    users.set_password(alice.id, "x")
    codes.append(submit(alice, n=2).json["code"])

    assert codes == ["quota_spent", "too_many_active_jobs", "queue_full", "token_invalid"]
    assert db.value("SELECT quota_used FROM users") == 2


def test_a_storm_of_submits_and_ends_keeps_every_limit(alice, bob, settings):
    settings.MAX_ACTIVE_JOBS, settings.DAILY_IMAGES = 4, 60
    over = threading.Event()

    def be_busy(person, number: int) -> list[int]:
        statuses = []
        for turn in range(12):
            statuses.append(submit(person, n=1 + turn % 2).status_code)
            ids = [row["id"] for row in person.history()["records"]]
            if turn % 2:
                one = ids[number % len(ids)]
                ended = person.post(f"/api/v1/images/{one}/cancel")
            else:
                ended = person.post("/api/v1/images/delete", json={"ids": ids[-1:]})
            statuses.append(ended.status_code)
        return statuses

    def make() -> None:
        while not over.is_set():
            work()

    def most_active() -> int:
        seen = [0]
        while not over.is_set():
            seen += [quota(person)["active"] for person in (alice, bob)]
        return max(seen)

    with ThreadPoolExecutor(9) as threads:
        busy = [
            threads.submit(be_busy, person, number)
            for person in (alice, bob)
            for number in range(3)
        ]
        others = [threads.submit(make), threads.submit(make), threads.submit(most_active)]
        wait(busy)
        over.set()

    assert {status for one in busy for status in one.result()} <= {200, 202, 404, 409, 410, 429}
    assert [one.result() for one in others[:2]] == [None, None] and others[2].result() <= 4
    for person in (alice, bob):
        kept = db.value(
            "SELECT COUNT(*) FROM image_generations WHERE user_id = %s AND status <> 'canceled'",
            person.id,
        )
        deleted = db.value("SELECT COUNT(*) FROM deleted_generations WHERE user_id = %s", person.id)
        assert kept <= quota(person)["used"] <= kept + deleted
    too_low = db.all(
        """
        SELECT id
          FROM users
         WHERE active_at_most < (SELECT COUNT(*)
                                   FROM image_generations
                                  WHERE user_id = users.id AND status IN ('pending', 'processing'))
        """
    )
    assert too_low == []


def test_a_spent_quota_is_refused_until_midnight(alice, settings):
    settings.DAILY_IMAGES = 3
    submit(alice, n=2)

    response = submit(alice, n=2)

    assert (response.status_code, response.json["code"]) == (429, "quota_spent")
    assert 0 < int(response.headers["Retry-After"]) <= 86400


def test_the_quota_says_what_is_left(alice, settings):
    settings.DAILY_IMAGES = 10
    submit(alice, n=3)

    state = quota(alice)

    assert (state["limit"], state["used"], state["remaining"]) == (10, 3, 7)
    assert (state["active"], state["activeLimit"]) == (3, settings.MAX_ACTIVE_JOBS)
    assert state["resetsAt"].endswith("T00:00:00Z")


def test_canceled_and_failed_generations_cost_nothing(alice, monkeypatch):
    canceled, _ = submit_one(alice), submit_one(alice)
    alice.post(f"/api/v1/images/{canceled}/cancel")
    monkeypatch.setattr(painter, "make", lambda request, on_progress: 1 / 0)
    work()

    assert (quota(alice)["used"], quota(alice)["active"]) == (0, 0)


def test_deleting_an_image_does_not_give_its_quota_back(alice):
    number = submit_one(alice)
    work()

    alice.open("DELETE", f"/api/v1/images/{number}")

    assert quota(alice)["used"] == 1


def test_another_day_has_a_quota_of_its_own(alice):
    submit(alice)
    db.execute("UPDATE users SET quota_day = quota_day - 1")

    assert quota(alice)["used"] == 0


def test_a_full_queue_refuses_everyone(alice, bob, settings):
    settings.MAX_QUEUE = 2
    submit(alice, n=2)

    response = submit(bob)

    assert (response.status_code, response.json["code"]) == (503, "queue_full")
    assert int(response.headers["Retry-After"]) > 0


def test_rows_of_an_older_program_do_not_count_as_waiting(alice, settings):
    settings.MAX_ACTIVE_JOBS = settings.MAX_QUEUE = 1
    db.insert("image_generations", user_id=alice.id, prompt_text="old", status="pending")

    assert submit(alice).status_code == 202
    work()
    assert [row["status"] for row in alice.history()["records"]] == ["completed", "pending"]


# -- Fairness -----------------------------------------------------------------------------------


def test_users_take_turns(alice, bob):
    for number in range(4):
        submit(alice, f"alice {number}")
    submit(bob, "bob 0")
    submit(bob, "bob 1")

    order = []
    while job := jobs.acquire(["test_model"]):
        order.append(job["prompt_text"])
        jobs.run(job)

    assert order == ["alice 0", "bob 0", "alice 1", "bob 1", "alice 2", "alice 3"]


def test_a_worker_acquires_only_the_models_it_serves(alice):
    submit(alice)

    assert jobs.acquire(["another"]) is None
    assert jobs.acquire(["another", "test_model"])


def test_many_workers_acquire_each_generation_once(alice, settings):
    settings.MAX_ACTIVE_JOBS = 100
    for _ in range(10):
        submit(alice, n=3)
    acquired = []

    def acquire_all() -> None:
        while job := jobs.acquire(["test_model"]):
            acquired.append(job["id"])

    threads = [threading.Thread(target=acquire_all) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(acquired) == len(set(acquired)) == 30


# -- Watching -----------------------------------------------------------------------------------


def test_a_waiting_record_says_its_position(alice, bob, monkeypatch):
    monkeypatch.setattr(queue_status, "current", queue_status.QueueStatus)
    submit(alice, n=4)
    number = submit_one(bob)

    waiting = record(bob, number)

    assert waiting["queuePosition"] == 2 and waiting["etaSeconds"] is None


def test_the_time_left_is_estimated_while_a_worker_is_alive(alice, monkeypatch):
    monkeypatch.setattr(queue_status, "current", queue_status.QueueStatus)
    queue.note_worker("w1", '{"test_model": ""}', 6.0)
    queue.note_worker("w2", '{"test_model": ""}', 6.0)

    records = submit(alice, n=4).json["data"]["records"]

    # Two are made at a time, and each has its own time.
    assert [record["etaSeconds"] for record in records] == [6, 9, 12, 15]


def test_a_record_not_changed_is_304(alice):
    number = submit_one(alice)
    work()
    first = alice.get(f"/api/v1/images/{number}")

    again = alice.get(f"/api/v1/images/{number}", headers={"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.data) == (304, b"")
    assert "Retry-After" not in first.headers


def test_a_change_is_seen(alice):
    number = submit_one(alice)
    first = alice.get(f"/api/v1/images/{number}")
    work()

    again = alice.get(f"/api/v1/images/{number}", headers={"If-None-Match": first.headers["ETag"]})

    assert again.json["data"]["status"] == "completed"
    assert int(first.headers["Retry-After"]) > 0


def test_several_are_watched_in_one_call_and_others_left_out(alice, bob):
    mine, other = submit_one(alice), submit_one(bob)

    response = alice.get(f"/api/v1/images?ids={mine},{other},999999")

    assert [record["id"] for record in response.json["data"]["records"]] == [mine]
    assert response.headers["ETag"] and response.headers["Retry-After"]


@pytest.mark.parametrize("ids", ["", "x", "1,,2", "-1", ",".join(["1"] * 51), "9" * 30])
def test_a_list_of_ids_that_is_none_is_named(alice, ids):
    response = alice.get("/api/v1/images", query_string={"ids": ids})

    assert list(response.json["fields"]) == ["ids"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"),
    ],
)  # fmt: skip
def test_anothers_generation_is_as_if_it_were_not_there(alice, bob, client, method, path):
    number = submit_one(alice)
    body = {"json": {"favorite": True}} if method == "PATCH" else {}

    assert bob.open(method, f"/api/v1/images/{number}{path}", **body).status_code == 404
    assert client.open(method, f"/api/v1/images/{number}{path}", **body).status_code == 401
    assert record(alice, number)["status"] == "pending"


# -- Cancel, retry, favorite, delete ------------------------------------------------------------


def test_a_waiting_generation_can_be_canceled(alice):
    number = submit_one(alice)

    response = alice.post(f"/api/v1/images/{number}/cancel")
    work()

    assert response.json["data"]["status"] == record(alice, number)["status"] == "canceled"


def test_a_finished_one_cannot(alice):
    number = submit_one(alice)
    work()

    response = alice.post(f"/api/v1/images/{number}/cancel")

    assert (response.status_code, response.json["code"]) == (409, "already_finished")


def test_a_result_that_comes_after_the_cancel_is_thrown_away(alice, settings):
    number = submit_one(alice)
    job = jobs.acquire(["test_model"])
    alice.post(f"/api/v1/images/{number}/cancel")

    with pytest.raises(jobs.ClaimLost):
        jobs.run(job)

    assert record(alice, number)["status"] == "canceled"
    assert not [path for path in settings.uploads_dir.rglob("*") if path.is_file()]
    assert db.all("SELECT file_key FROM pending_deletions") == []


def test_cancel_and_finish_at_the_same_moment_agree(alice, settings):
    settings.MAX_ACTIVE_JOBS = 50
    numbers = [submit_one(alice) for _ in range(8)]
    worker = threading.Thread(target=work)
    worker.start()
    for number in numbers:
        alice.post(f"/api/v1/images/{number}/cancel")
    worker.join()

    records = [record(alice, number) for number in numbers]
    completed = [one for one in records if one["status"] == "completed"]
    assert {one["status"] for one in records} <= {"completed", "canceled"}
    files = [path for path in settings.uploads_dir.rglob("*") if path.is_file()]
    assert len(files) == 2 * len(completed)
    assert quota(alice)["used"] == len(completed)


def test_retry_makes_a_new_generation_with_the_same_parameters(alice):
    number = submit_one(alice, prompt="a hen", seed=3, steps=4, negative_prompt="rain")

    response = alice.post(f"/api/v1/images/{number}/retry")

    new = response.json["data"]["records"][0]
    assert response.status_code == 202 and new["id"] != number
    assert (new["prompt"], new["params"]) == ("a hen", record(alice, number)["params"])


def test_retry_with_a_new_seed(alice):
    number = submit_one(alice, seed=3)

    response = alice.post(f"/api/v1/images/{number}/retry", json={"seed": "new"})

    new = response.json["data"]["records"][0]
    assert new["params"]["seed"] != 3


def test_retry_of_a_row_of_an_older_program_uses_what_it_knows(alice):
    number = db.insert("image_generations", user_id=alice.id, prompt_text="old", status="completed")

    response = alice.post(f"/api/v1/images/{number}/retry")

    assert response.json["data"]["records"][0]["model"] == "test_model"


def test_a_favorite_is_marked_and_found(alice):
    number, _ = submit_one(alice), submit_one(alice)

    response = alice.open("PATCH", f"/api/v1/images/{number}", json={"favorite": True})

    assert response.json["data"]["favorite"] is True
    assert [row["id"] for row in alice.history("?favorite=true")["records"]] == [number]


@pytest.mark.parametrize("body", [{}, {"favorite": 1}, {"favorite": "true"}, {"favorite": None}])
def test_a_favorite_that_is_no_boolean_is_named(alice, body):
    number = submit_one(alice)

    response = alice.open("PATCH", f"/api/v1/images/{number}", json=body)

    assert list(response.json["fields"]) == ["favorite"]


def test_delete_removes_row_image_and_thumbnail(alice, settings):
    number = submit_one(alice)
    work()

    response = alice.open("DELETE", f"/api/v1/images/{number}")

    assert response.json["data"] == {"deleted": [number]}
    assert not [path for path in settings.uploads_dir.rglob("*") if path.is_file()]
    assert alice.history()["pagination"]["total"] == 0


def test_a_deleted_id_is_410_and_one_that_never_was_404(alice, bob):
    number = submit_one(alice)
    alice.open("DELETE", f"/api/v1/images/{number}")

    gone, never = alice.get(f"/api/v1/images/{number}"), alice.get("/api/v1/images/999999")

    assert (gone.status_code, gone.json["code"]) == (410, "image_deleted")
    assert never.status_code == bob.get(f"/api/v1/images/{number}").status_code == 404


def test_ids_are_never_used_again(alice):
    number = submit_one(alice)
    alice.open("DELETE", f"/api/v1/images/{number}")

    assert submit_one(alice) > number


def test_many_are_deleted_in_one_call(alice, bob):
    mine, other = [submit_one(alice) for _ in range(3)], submit_one(bob)

    response = alice.post("/api/v1/images/delete", json={"ids": [*mine, other, 999999]})

    assert response.json["data"] == {"deleted": mine}
    assert record(bob, other)["status"] == "pending"


@pytest.mark.parametrize("ids", [[], [0], ["1"], [True], "1", None, [1] * 101])
def test_ids_to_delete_are_checked(alice, ids):
    response = alice.post("/api/v1/images/delete", json={"ids": ids})

    assert response.status_code == 400
    assert next(iter(response.json["fields"])).startswith("ids")


def test_deleting_what_is_being_made_stops_it(alice, settings):
    number = submit_one(alice)
    job = jobs.acquire(["test_model"])

    alice.open("DELETE", f"/api/v1/images/{number}")
    with pytest.raises(jobs.ClaimLost):
        jobs.run(job)

    assert not [path for path in settings.uploads_dir.rglob("*") if path.is_file()]


def test_deleting_at_the_moment_of_completion_leaves_no_file(alice, settings, monkeypatch):
    number = submit_one(alice)
    worker = threading.Thread(target=run_unless_lost, args=(jobs.acquire(["test_model"]),))
    lock_rows = trash._lock_rows

    def lock_and_let_the_worker_try(*arguments, **values) -> list[db.Row]:
        found = lock_rows(*arguments, **values)
        worker.start()
        worker.join(1)  # it cannot end before the delete has, which holds the row
        return found

    monkeypatch.setattr(trash, "_lock_rows", lock_and_let_the_worker_try)
    alice.open("DELETE", f"/api/v1/images/{number}")
    worker.join()

    assert not [path for path in settings.uploads_dir.rglob("*") if path.is_file()]
    assert quota(alice)["used"] == 0


# -- What goes wrong ----------------------------------------------------------------------------


def failing(error: Exception):
    def make(request, on_progress):
        raise error

    return make


def test_an_engine_that_fails_for_good_fails_the_generation_at_once(alice, monkeypatch):
    monkeypatch.setattr(painter, "make", failing(PermanentError("bad_picture", "a secret detail")))
    number = submit_one(alice)

    work()

    failed = record(alice, number)
    assert (failed["status"], failed["errorCode"]) == ("failed", "bad_picture")
    assert failed["errorMessage"] and "secret" not in failed["errorMessage"]


def test_an_engine_that_is_unavailable_is_retried_after_a_backoff(alice, monkeypatch):
    monkeypatch.setattr(painter, "make", failing(TransientError("engine_unavailable")))
    number = submit_one(alice)

    work()
    waiting = record(alice, number)["status"]
    for _ in range(jobs.MAX_ATTEMPTS):
        db.execute("UPDATE image_generations SET not_before = 0")
        work()

    assert waiting == "pending"
    assert record(alice, number)["errorCode"] == "engine_unavailable"


def test_the_owner_sees_what_the_engine_says(alice, monkeypatch):
    monkeypatch.setattr(
        painter,
        "make",
        failing(PermanentError("engine_refused", "for the log", shown="KSampler: no such sampler")),
    )
    number = submit_one(alice)
    work()

    alice.headers["Accept-Language"] = "en"

    message = record(alice, number)["errorMessage"]
    assert (
        message == "The engine does not take the request's parameters (KSampler: no such sampler)"
    )


def test_a_surprise_in_an_engine_puts_no_prompt_into_the_log(alice, monkeypatch, caplog):
    monkeypatch.setattr(painter, "make", failing(ValueError("cannot draw a zebra at dawn")))
    submit_one(alice, prompt="a zebra at dawn")

    work()

    printed = "\n".join(logs.JsonFormatter().format(line) for line in caplog.records)
    assert "ValueError" in printed and "tests/test_queue.py" in printed and "zebra" not in printed


# -- What may be charged ------------------------------------------------------------------------


def acquire_and_send(person) -> tuple[int, dict]:
    """Acquire a job and note that it may be charged, as an engine does before its request."""
    number = submit_one(person)
    job = jobs.acquire(["test_model"])
    jobs.mark_may_be_charged(job)
    return number, job


def test_what_may_be_charged_when_its_worker_died_is_not_retried(alice):
    number, _ = acquire_and_send(alice)
    db.execute("UPDATE image_generations SET lease_until = 1")

    jobs.sweep()

    failed = record(alice, number)
    assert (failed["status"], failed["errorCode"]) == ("failed", "outcome_unknown")
    assert quota(alice)["used"] == 0


def test_what_may_be_charged_when_its_worker_must_end_is_not_retried(alice):
    number, job = acquire_and_send(alice)

    jobs.release(job)

    assert record(alice, number)["errorCode"] == "outcome_unknown"


def test_what_was_canceled_is_not_sent(alice):
    number = submit_one(alice)
    job = jobs.acquire(["test_model"])
    alice.post(f"/api/v1/images/{number}/cancel")

    with pytest.raises(jobs.ClaimLost):
        jobs.mark_may_be_charged(job)


def test_what_may_be_charged_is_retried_after_an_answer_of_try_later(alice, monkeypatch):
    def busy(request, on_progress):
        request.before_send()
        raise TransientError("engine_busy")

    monkeypatch.setattr(painter, "make", busy)
    number = submit_one(alice)
    work()
    monkeypatch.undo()
    db.execute("UPDATE image_generations SET not_before = 0")
    jobs.release(jobs.acquire(["test_model"]))
    work()

    assert record(alice, number)["status"] == "completed"


def test_a_full_disk_does_not_pay_twice(alice, monkeypatch):
    def full(key, data):
        raise OSError("no space left on device")

    make = painter.make

    def make_paid(request, on_progress):
        request.before_send()
        return make(request, on_progress)

    monkeypatch.setattr(painter, "make", make_paid)
    monkeypatch.setattr(storage, "put", full)
    number = submit_one(alice)
    work()

    assert record(alice, number)["errorCode"] == "storage_unavailable"


def test_a_finished_image_waits_for_the_database(alice, monkeypatch):
    complete, asked = queue.complete, []

    def unavailable_at_first(*values):
        asked.append(values)
        if len(asked) == 1:
            raise db.Unavailable
        return complete(*values)

    monkeypatch.setattr(queue, "complete", unavailable_at_first)
    number = submit_one(alice)
    work()

    assert record(alice, number)["status"] == "completed" and len(asked) == 2


def test_the_job_of_a_dead_worker_is_made_by_another(alice):
    number = submit_one(alice)
    jobs.acquire(["test_model"])
    db.execute("UPDATE image_generations SET lease_until = 1")

    jobs.sweep()
    work()

    assert record(alice, number)["status"] == "completed"


def test_a_generation_that_kills_its_workers_is_given_up(alice):
    number = submit_one(alice)
    for _ in range(jobs.MAX_ATTEMPTS):
        jobs.acquire(["test_model"])
        db.execute("UPDATE image_generations SET lease_until = 1")
        jobs.sweep()

    assert (record(alice, number)["status"], record(alice, number)["errorCode"]) == (
        "failed",
        "worker_lost",
    )


def test_a_generation_past_its_deadline_fails(alice):
    number = submit_one(alice)
    jobs.acquire(["test_model"])
    db.execute("UPDATE image_generations SET deadline_at = 1")

    jobs.sweep()

    assert record(alice, number)["errorCode"] == "timeout"
    assert quota(alice)["used"] == 0


def test_a_worker_that_lost_its_lease_changes_nothing(alice, settings):
    number = submit_one(alice)
    slow = jobs.acquire(["test_model"])
    db.execute("UPDATE image_generations SET lease_until = 1")
    jobs.sweep()
    work()
    before = record(alice, number)

    with pytest.raises(jobs.ClaimLost):
        jobs.run(slow)

    assert record(alice, number) == before
    assert len([path for path in settings.uploads_dir.rglob("*") if path.is_file()]) == 2


def test_files_of_a_worker_killed_before_the_result_was_recorded_are_deleted(
    alice, settings, monkeypatch
):
    def unavailable(*arguments):
        raise db.Unavailable

    submit(alice)
    monkeypatch.setattr(queue, "complete", unavailable)
    with pytest.raises(db.Unavailable):
        jobs.run(jobs.acquire(["test_model"]))
    monkeypatch.undo()

    db.execute("UPDATE pending_deletions SET due_at = 1")
    jobs.sweep()

    assert not [path for path in settings.uploads_dir.rglob("*") if path.is_file()]


def test_a_draft_of_a_worker_killed_while_writing_is_deleted(alice, settings, monkeypatch):
    submit(alice)
    job = jobs.acquire(["test_model"])
    if not os.fork():
        os.replace = lambda *paths: os._exit(9)
        jobs.run(job)
    os.wait()

    db.execute("UPDATE pending_deletions SET due_at = 1")
    jobs.sweep()

    assert not [path for path in settings.uploads_dir.rglob("*") if path.is_file()]


def test_a_full_disk_is_tried_again_later(alice, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    number = submit_one(alice)
    monkeypatch.setattr(results.storage, "put", full)
    work()
    monkeypatch.undo()
    waiting = record(alice, number)["status"]

    db.execute("UPDATE image_generations SET not_before = 0")
    work()

    assert (waiting, record(alice, number)["status"]) == ("pending", "completed")


def test_files_of_a_delete_that_was_killed_half_way_are_deleted(alice, settings, monkeypatch):
    number = submit_one(alice)
    work()
    monkeypatch.setattr(cleanup, "delete_files", lambda keys: None)
    alice.open("DELETE", f"/api/v1/images/{number}")
    monkeypatch.undo()

    jobs.sweep()

    assert not [path for path in settings.uploads_dir.rglob("*") if path.is_file()]


def test_a_result_whose_answer_was_lost_may_be_recorded_again(alice):
    number = submit_one(alice)
    job = jobs.acquire(["test_model"])
    jobs.run(job)

    assert queue.complete(number, job["claim"], {"progress": 100}, ["x"])


# -- Signed links -------------------------------------------------------------------------------


@pytest.fixture
def link(alice):
    submit_one(alice)
    work()
    return alice.history()["records"][0]["signedImageUrl"]


def test_a_signed_link_shows_the_image_without_a_header(client, link):
    response = client.get(link)

    assert (response.status_code, response.mimetype) == (200, "image/png")


def test_a_signed_link_is_the_same_for_a_while(alice, link):
    assert alice.history()["records"][0]["signedImageUrl"] == link


@pytest.mark.parametrize(
    "forge",
    [
        lambda link: link[:-1] + ("0" if link[-1] != "0" else "1"),
        lambda link: link.replace("expires=1", "expires=2"),
        lambda link: link.replace(".png?", "_thumbnail.webp?"),
        lambda link: link.split("&")[0] + "&sig=",
        lambda link: link.split("?")[0] + "?sig=" + link.split("sig=")[1],
        lambda link: link.replace("expires=", "expires=-"),
        lambda link: link.replace("expires=", "expires=１"),
        lambda link: link.replace("/generated_images/", "/generated_images/9"),
        lambda link: link.replace("sig=", "sig=é"),
    ],
)
def test_a_forged_link_is_refused(client, link, forge):
    assert client.get(forge(link)).json["code"] == "link_invalid"


def test_a_link_ends(client, link, monkeypatch):
    import time

    later = time.time() + 3 * 3600
    monkeypatch.setattr("accounts.tokens.time.time", lambda: later)

    assert client.get(link).status_code == 403


def test_a_link_is_void_once_the_sessions_are_ended(alice, client, link):
    users.set_password(alice.id, "x")

    assert client.get(link).status_code == 403


# -- Limits of the day and of the minute ----------------------------------------------------------


def cancel_all(person) -> None:
    for one in person.history("?per_page=50")["records"]:
        person.post(f"/api/v1/images/{one['id']}/cancel")


def test_submits_that_are_canceled_at_once_end_too(alice, settings, one_minute):
    settings.SUBMITS_PER_MINUTE = 5
    submit(alice, n=4)
    cancel_all(alice)

    refused = submit(alice, n=2)

    assert (refused.status_code, refused.json["code"]) == (429, "too_many_submits")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    # What was refused has counted nothing.
    assert submit(alice).status_code == 202
    assert quota(alice)["used"] == 1


def test_retry_and_generate_test_count_in_the_minute_too(alice, settings, one_minute):
    settings.SUBMITS_PER_MINUTE = 2
    number = submit_one(alice)
    work()

    assert alice.post(f"/api/v1/images/{number}/retry").status_code == 202
    assert alice.post(f"/api/v1/images/{number}/retry").json["code"] == "too_many_submits"
    assert alice.generate().json["code"] == "too_many_submits"


def test_a_key_used_again_does_not_count_in_the_minute(alice, settings, one_minute):
    settings.SUBMITS_PER_MINUTE = 2

    assert [submit(alice, key="k").status_code for _ in range(4)] == [202] * 4


@pytest.mark.parametrize("minutes", [-1, 525_600])
def test_another_minute_starts_anew_though_the_clock_was_wrong(
    alice, settings, one_minute, minutes
):
    settings.SUBMITS_PER_MINUTE = 1
    submit(alice, n=4)  # the first of a minute always has room
    db.execute("UPDATE users SET submit_minute = submit_minute + %s", minutes)

    assert submit(alice).status_code == 202
    assert submit(alice).json["code"] == "too_many_submits"


@pytest.mark.parametrize("days", [2, 365])
def test_a_day_of_a_clock_that_was_wrong_ends_at_once(alice, settings, days):
    settings.DAILY_IMAGES = 3
    submit(alice, n=3)
    db.execute("UPDATE users SET quota_day = quota_day + %s", days)

    assert (quota(alice)["used"], submit(alice, n=2).status_code) == (0, 202)
    response = submit(alice, n=2)
    assert (response.status_code, quota(alice)["used"]) == (429, 2)
    assert 0 < int(response.headers["Retry-After"]) <= 86400


def test_the_quota_is_that_of_the_day_in_its_time_zone(alice, settings):
    settings.DAILY_IMAGES = 3
    settings.QUOTA_TIMEZONE = ZoneInfo("Asia/Kathmandu")
    submit(alice, n=3)

    state = quota(alice)

    assert (state["used"], state["timezone"]) == (3, "Asia/Kathmandu")
    assert state["resetsAt"].endswith("T18:15:00Z")
    assert submit(alice).json["code"] == "quota_spent"


# Each is the last second of a day: ordinary ones, of 23 and of 25 hours, one without a midnight,
# one with two, and one before a day that never was.
DAY_ENDS = [
    ("UTC", "2024-02-29T23:59:59+00:00"),
    ("Asia/Shanghai", "2024-05-01T23:59:59+08:00"),
    ("America/New_York", "2024-03-10T23:59:59-04:00"),
    ("America/New_York", "2024-11-03T23:59:59-05:00"),
    ("Asia/Beirut", "2024-03-30T23:59:59+02:00"),
    ("America/Havana", "2024-11-02T23:59:59-04:00"),
    ("Pacific/Apia", "2011-12-29T23:59:59-10:00"),
]


@pytest.mark.parametrize(("name", "last_second"), DAY_ENDS)
def test_days_end_at_midnight_whatever_clocks_do_there(settings, name, last_second):
    settings.QUOTA_TIMEZONE = config.time_zone(name)
    last = int(datetime.fromisoformat(last_second).timestamp())

    day = quotas.day_of(last)

    assert quotas.end_of(day) == last + 1
    assert quotas.day_of(last + 1) > day
    assert quotas.day_of(quotas.end_of(day - 1)) == day


# -- Disabled accounts ----------------------------------------------------------------------------

BY_HAND = "UPDATE users SET is_disabled = 1 WHERE username = 'alice'"


def state(number: int) -> tuple[str, int]:
    """Return the status of a generation, and how much of its user's quota is used."""
    row = db.one(
        """
        SELECT g.status, u.quota_used
          FROM image_generations AS g
          JOIN users AS u ON u.id = g.user_id
         WHERE g.id = %s
        """,
        number,
    )
    return row["status"], row["quota_used"]


def test_the_queue_of_an_account_that_is_disabled_by_hand_stops(alice, bob):
    number = submit_one(alice)
    other = submit_one(bob)
    db.execute(BY_HAND)

    work()

    assert record(bob, other)["status"] == "completed"
    assert state(number) == ("pending", 1)
    jobs.sweep()
    assert state(number) == ("canceled", 0)


def test_a_job_that_is_taken_while_its_account_is_disabled_is_not_begun(alice):
    number = submit_one(alice)
    job = queue.get_job(number)
    db.execute(BY_HAND)

    assert not queue.claim_job(job, "x", 30, 60, now=0.0)


def test_what_is_being_made_for_a_disabled_account_stops_unpaid(alice):
    number = submit_one(alice)
    job = jobs.acquire(["test_model"])
    db.execute(BY_HAND)

    assert not queue.renew_lease(number, job["claim"], 30, progress=1)
    with pytest.raises(jobs.ClaimLost):
        jobs.mark_may_be_charged(job)
    jobs.sweep()
    assert state(number) == ("canceled", 0)


def test_an_account_that_is_enabled_again_may_submit_again(alice):
    db.execute(BY_HAND)
    db.execute("UPDATE users SET is_disabled = 0")
    number = submit_one(alice)

    work()

    assert record(alice, number)["status"] == "completed"


# -- A database clock that was wrong by a year ----------------------------------------------------

YEAR = 365 * 86400


def test_a_dead_worker_of_next_year_lets_its_job_go(alice):
    number = submit_one(alice)
    jobs.acquire(["test_model"])
    db.execute(
        f"""
        UPDATE image_generations
           SET lease_until = lease_until + {YEAR}, deadline_at = deadline_at + {YEAR}
        """
    )
    jobs.sweep()
    row = db.one("SELECT lease_until - UNIX_TIMESTAMP() AS seconds FROM image_generations")
    assert row["seconds"] <= 3600

    db.execute("UPDATE image_generations SET lease_until = 1")
    jobs.sweep()
    work()

    assert record(alice, number)["status"] == "completed"


def test_a_living_worker_of_next_year_keeps_its_job(alice):
    number = submit_one(alice)
    job = jobs.acquire(["test_model"])
    db.execute("UPDATE image_generations SET lease_until = lease_until + %s", YEAR)
    jobs.sweep()

    jobs.run(job)

    assert record(alice, number)["status"] == "completed"


def test_a_job_put_off_to_next_year_is_made(alice):
    number = submit_one(alice)
    db.execute("UPDATE image_generations SET not_before = UNIX_TIMESTAMP() + %s", YEAR)
    jobs.sweep()

    work()

    assert record(alice, number)["status"] == "completed"


def test_a_user_served_next_year_takes_turns(alice, bob):
    first = submit_one(alice)
    submit_one(bob)
    db.execute("UPDATE users SET served_at = UNIX_TIMESTAMP() + %s WHERE id = %s", YEAR, alice.id)
    db.execute("UPDATE users SET served_at = 5 WHERE id = %s", bob.id)

    assert next_generation(["test_model"]) == first


def test_a_worker_seen_next_year_is_not_alive(database):
    queue.note_worker("w1", "{}", 1.0)
    db.execute("UPDATE workers SET seen_at = seen_at + %s", YEAR)

    assert queue.list_live_workers(30) == []
    queue.delete_old_workers()
    assert db.value("SELECT COUNT(*) FROM workers") == 0
