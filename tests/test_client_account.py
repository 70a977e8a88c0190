"""One's own account and the admin's screens in the reference client, in a real browser."""

import time

import pytest

import db
from accounts import invites
from accounts.schemas import InviteInput
from images import quota
from tests.browser import use
from tests.conftest import Person
from tests.oidc_provider import CLIENT
from tests.servers import Provider, Service
from validation import parse


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("size", "language"), [("laptop", "en"), ("phone", "zh")])
def test_everything_about_ones_own_account(live, tmp_path, size, language):
    url = live().url
    _, code = invites.create(parse(InviteInput, {"dailyImages": 77}))

    seen = use("account_page.mjs", url, tmp_path, size, language, code)

    assert seen == {
        "focus": "password",
        "sessions": 2,
        "key": 200,
        "revoked": 401,
        "redeemed": True,
        "saved": f"recovery-codes-ruth-{size}.txt",
        "codes": 10,
        "end": "reached",
    }


def fill_charts() -> None:
    """Let three models have made images on each of the last 40 days, and failed now and then."""
    today = quota.day_of(time.time())
    for day in range(today - 40, today + 1):
        for number, model in enumerate(["test_model", "flux-schnell", "sdxl-turbo"], 1):
            for outcome, jobs in (("completed", (day * number) % 17 + number), ("failed", day % 3)):
                db.execute(
                    """
                    INSERT INTO daily_jobs
                           (day, model, outcome, jobs, bytes, waiting_seconds, waiting_most,
                            running_seconds, running_most)
                    VALUES (%s, %s, %s, %s, %s, %s, 30, 90, 20)
                    """,
                    day,
                    model,
                    outcome,
                    jobs,
                    jobs * 400_000,
                    jobs * number * 4,
                )


@pytest.fixture
def people(database):
    """An admin, and two others; one has a job that waits and one that failed."""
    root, bob, _ = (Person(name) for name in ("root", "bob", "carol"))
    db.execute("UPDATE users SET role = 'admin' WHERE id = %s", root.id)
    for prompt in ("a fox", "a hen"):
        bob.post("/api/v1/images/generate", json={"prompt": prompt})
    db.execute(
        "UPDATE image_generations SET status = 'failed', error_code = 'timeout'"
        " WHERE prompt_text = 'a hen'"
    )
    fill_charts()


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("size", "language"), [("laptop", "en"), ("phone", "zh")])
def test_everything_an_admin_does(people, live, tmp_path, size, language):
    seen = use("admin_page.mjs", live().url, tmp_path, size, language)

    assert seen == {
        "days": 30,
        "code": True,
        "invited": True,
        "kept": "",
        "csv": "audit.csv",
        "jsonl": "audit.jsonl",
        "menu": 0,
        "end": "reached",
    }


@pytest.fixture
def service_with_provider(empty_database, settings, tmp_path):
    """The service, and a provider that leads back to its page."""
    service = Service(tmp_path, PASSWORD_HASH=settings.PASSWORD_HASH)
    provider = Provider(tmp_path / "provider", f"{service.url}/api/auth/oidc/callback")
    service.environment |= {
        "OIDC_ISSUER": f"{provider.url}/o",
        "OIDC_CLIENT_ID": CLIENT["id"],
        "OIDC_CLIENT_SECRET": CLIENT["secret"],
        "OIDC_LABEL": "Example",
        "OIDC_RETURN_URL": f"{service.url}/login",
    }
    service.start()
    yield service, provider
    service.stop()
    provider.stop()


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_logging_in_elsewhere_and_linking_it(service_with_provider, tmp_path):
    service, provider = service_with_provider

    seen = use("openid_page.mjs", service.url, tmp_path, "laptop", "en", provider.url)

    assert seen == {
        "opened": "carol",
        "address": "",
        "linked": "ruth",
        "end": "reached",
    }


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("size", "language"), [("laptop", "en"), ("phone", "zh")])
def test_what_is_said_when_not_all_is_well(people, live, tmp_path, size, language):
    url = live(DAILY_IMAGES="1").url

    seen = use("states_page.mjs", url, tmp_path, size, language)

    assert seen == {
        "paused": True,
        "tiles": 1,
        "prompt": "a hen",
        "back": True,
        "kept": "secret2",
        "end": "reached",
    }
