"""Limits of one account: images a day, unfinished ones, models, and when these limits end."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import db
from accounts import limits
from accounts.limits import ADMIN, INVITE, Limits
from tests.test_queue import quota, submit, submit_one, work

MODELS_FILE = """
[test_model]
label = "Painter"
engine = "painter"
width = { min = 64, max = 1024, default = 512 }
height = { min = 64, max = 1024, default = 512 }
steps = { min = 1, max = 50, default = 20 }

[flux]
label = "Flux"
engine = "painter"
width = { min = 64, max = 1024, default = 512 }
height = { min = 64, max = 1024, default = 512 }
steps = { min = 1, max = 50, default = 20 }

[FLUX]
label = "Another"
engine = "painter"
width = { min = 64, max = 1024, default = 512 }
height = { min = 64, max = 1024, default = 512 }
steps = { min = 1, max = 50, default = 20 }

[fl_x]
label = "One whose name has a wildcard of SQL"
engine = "painter"
width = { min = 64, max = 1024, default = 512 }
height = { min = 64, max = 1024, default = 512 }
steps = { min = 1, max = 50, default = 20 }
"""


@pytest.fixture
def models(settings, tmp_path):
    settings.MODELS_FILE = tmp_path / "models.toml"
    settings.MODELS_FILE.write_text(MODELS_FILE)


def limit(person, until: int | None = None, source: str = ADMIN, **changes) -> None:
    assert limits.set_limits(person.id, Limits(**changes), until, source)


def shown(person) -> dict:
    profile = person.get("/api/auth/profile").json["data"]["limits"]
    assert quota(person)["limits"] == profile
    return profile


def end_limits(person) -> None:
    """Let the limits of an account have ended a second ago."""
    db.execute("UPDATE users SET limits_until = UNIX_TIMESTAMP() - 1 WHERE id = %s", person.id)


# -- What is shown ------------------------------------------------------------------------------


def test_the_settings_are_the_limits_of_an_account_without_any(alice, settings):
    settings.DAILY_IMAGES, settings.MAX_ACTIVE_JOBS = 30, 4

    assert shown(alice) == {
        "dailyImages": 30, "activeJobs": 4, "models": None, "expiresAt": None, "source": "setting",
    }  # fmt: skip


def test_limits_of_the_account_are_shown_with_their_end(alice):
    limit(alice, 2_000_000_000, INVITE, daily_images=7, active_jobs=2, models=["test_model"])

    assert shown(alice) == {
        "dailyImages": 7,
        "activeJobs": 2,
        "models": ["test_model"],
        "expiresAt": "2033-05-18T03:33:20Z",
        "source": "invite",
    }
    assert (quota(alice)["limit"], quota(alice)["activeLimit"]) == (7, 2)


def test_a_limit_that_is_not_set_is_the_setting(alice, bob, settings):
    limit(alice, daily_images=7)

    state = shown(alice)

    assert (state["dailyImages"], state["activeJobs"]) == (7, settings.MAX_ACTIVE_JOBS)
    assert (state["models"], state["source"]) == (None, "admin")
    assert shown(bob)["source"] == "setting"


def test_limits_that_have_ended_are_not_shown(alice, settings):
    limit(alice, daily_images=7, active_jobs=2, models=["flux"])
    end_limits(alice)

    assert shown(alice) == {
        "dailyImages": settings.DAILY_IMAGES,
        "activeJobs": settings.MAX_ACTIVE_JOBS,
        "models": None,
        "expiresAt": None,
        "source": "setting",
    }


def test_no_limits_are_the_settings_again(alice):
    limit(alice, daily_images=7)
    limit(alice, until=2_000_000_000)

    assert (shown(alice)["source"], shown(alice)["expiresAt"]) == ("setting", None)


# -- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "setting"), [(2, 500), (500, 2)])
def test_a_daily_limit_may_be_lower_or_higher_than_the_setting(alice, settings, most, setting):
    settings.DAILY_IMAGES = setting
    limit(alice, daily_images=most)

    codes = [submit(alice, n=2).status_code, submit(alice).status_code]

    assert codes == ([202, 429] if most == 2 else [202, 202])


@pytest.mark.parametrize(("most", "setting"), [(2, 20), (20, 2)])
def test_a_limit_of_unfinished_ones_may_be_lower_or_higher(alice, settings, most, setting):
    settings.MAX_ACTIVE_JOBS = setting
    limit(alice, active_jobs=most)

    codes = [submit(alice, n=2).status_code, submit(alice).status_code]

    assert codes == ([202, 429] if most == 2 else [202, 202])


def test_limits_of_one_account_are_not_those_of_another(alice, bob):
    limit(alice, daily_images=1)
    submit(alice)

    assert [submit(alice).status_code, submit(bob).status_code] == [429, 202]


def test_a_daily_limit_that_is_lowered_below_what_is_used_lets_nothing_through(alice):
    submit(alice, n=3)
    limit(alice, daily_images=2)

    response = submit(alice)

    assert response.json["code"] == "quota_spent"
    assert 0 < int(response.headers["Retry-After"]) <= 86400
    assert (quota(alice)["used"], quota(alice)["remaining"]) == (3, 0)


def test_a_daily_limit_that_is_raised_counts_what_was_used(alice, settings):
    settings.DAILY_IMAGES = 2
    submit(alice, n=2)
    limit(alice, daily_images=3)

    assert [submit(alice).status_code for _ in range(2)] == [202, 429]
    assert quota(alice)["used"] == 3


def test_limits_that_end_in_the_middle_of_a_day_leave_the_setting(alice, settings):
    settings.DAILY_IMAGES = 2
    limit(alice, daily_images=5, models=["test_model"])
    submit(alice, n=3)
    end_limits(alice)

    assert submit(alice).json["code"] == "quota_spent"
    settings.DAILY_IMAGES = 4
    assert submit(alice).status_code == 202


def test_ended_limits_of_unfinished_ones_are_counted_anew(alice, settings):
    settings.MAX_ACTIVE_JOBS = 4
    limit(alice, active_jobs=2)
    submit(alice, n=2)
    end_limits(alice)

    assert [submit(alice).status_code for _ in range(3)] == [202, 202, 429]


def test_what_has_ended_makes_room_under_a_limit(alice):
    limit(alice, active_jobs=2)
    submit(alice, n=2)
    work()

    assert [submit(alice).status_code for _ in range(3)] == [202, 202, 429]


def test_a_full_queue_is_said_after_what_the_account_used_up(alice, settings):
    settings.MAX_QUEUE = 1
    limit(alice, daily_images=1)
    submit(alice)

    assert submit(alice).json["code"] == "quota_spent"


# -- Models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["FLUX", "fl_x", "test_model", None])
def test_a_model_that_is_not_allowed_is_refused(alice, models, model):
    limit(alice, models=["flux"])

    response = submit(alice, model=model)

    assert (response.status_code, response.json["code"]) == (403, "model_not_allowed")
    assert response.json["message"] == "该账号不可使用此模型"
    assert response.json["fields"] == {"model": "model 必须是 flux 之一"}
    assert (quota(alice)["used"], alice.history()["records"]) == (0, [])


@pytest.mark.parametrize("model", ["flux", "fl_x"])
def test_each_of_the_allowed_models_is_taken(alice, models, model):
    limit(alice, models=["flux", "fl_x"])

    assert submit(alice, model=model).status_code == 202


def test_a_name_within_another_is_not_allowed(alice, models):
    limit(alice, models=["flux.1", "my.flux", "lux"])

    assert submit(alice, model="flux").status_code == 403


def test_models_of_limits_that_have_ended_are_all(alice, models):
    limit(alice, models=["flux"])
    end_limits(alice)

    assert submit(alice, model="FLUX").status_code == 202


def test_a_retry_is_held_to_the_models_of_today(alice, models):
    number = submit_one(alice, model="FLUX")
    limit(alice, models=["flux"])

    response = alice.post(f"/api/v1/images/{number}/retry")

    assert (response.status_code, response.json["code"]) == (403, "model_not_allowed")


def test_a_test_image_is_one_of_its_model(alice, models):
    limit(alice, models=["flux"])
    refused = alice.generate()
    limit(alice, models=["test_model"])

    assert (refused.status_code, refused.json["code"]) == (403, "model_not_allowed")
    assert alice.generate().status_code == 200


def test_a_test_image_counts_under_the_limits(alice):
    limit(alice, daily_images=1)

    assert [alice.generate().status_code for _ in range(2)] == [200, 429]


def test_a_key_used_again_gives_its_images_whatever_the_limits_are_now(alice, models):
    first = submit(alice, key="k", model="FLUX")
    limit(alice, daily_images=1, models=["flux"])
    again = submit(alice, key="k", model="FLUX")

    assert again.status_code == 202
    assert again.json["data"]["records"] == first.json["data"]["records"]
    assert quota(alice)["used"] == 1


def test_a_refused_request_does_not_use_its_key_up(alice, models):
    limit(alice, models=["flux"])
    refused = submit(alice, key="k", model="FLUX")
    limit(alice)

    assert refused.status_code == 403
    assert submit(alice, key="k", model="FLUX").status_code == 202
    assert quota(alice)["used"] == 1


# -- At the same moment -------------------------------------------------------------------------


def test_the_last_image_of_a_limit_is_reserved_once(alice):
    limit(alice, daily_images=3)

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: submit(alice).status_code, range(10)))

    assert sorted(answers) == [202] * 3 + [429] * 7
    assert (quota(alice)["used"], alice.history()["pagination"]["total"]) == (3, 3)


def test_limits_that_change_during_a_storm_hold_at_each_moment(alice, settings):
    settings.MAX_ACTIVE_JOBS = 100

    def change() -> None:
        for _ in range(20):
            limit(alice, daily_images=5, active_jobs=9)
            limit(alice, daily_images=8, active_jobs=7)

    with ThreadPoolExecutor(4) as threads:
        changing = threads.submit(change)
        answers = list(threads.map(lambda _: submit(alice).status_code, range(40)))

    assert changing.result() is None
    assert set(answers) <= {202, 429}
    assert answers.count(202) == alice.history()["pagination"]["total"] == quota(alice)["used"]
    assert 5 <= answers.count(202) <= 7


def test_a_disabled_or_unknown_account_has_no_limits_to_set(alice):
    assert not limits.set_limits(alice.id + 1, Limits(daily_images=1), None, ADMIN)


def test_limits_that_end_later_count_until_then(alice):
    limit(alice, int(time.time()) + 3600, daily_images=1)
    submit(alice)

    assert submit(alice).json["code"] == "quota_spent"
