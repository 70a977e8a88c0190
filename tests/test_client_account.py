"""One's own account and the admin's screens in the reference client, in a real browser."""

import json

import pytest

from accounts import invites
from accounts.schemas import InviteInput
from tests.test_clients import NODE, install, need, run
from validation import parse


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node, with what drives the browser in place."""
    install(NODE)
    return need("node")


def use(node: str, script: str, folder, *arguments: str) -> dict:
    """Run a script with Chromium and return what it saw; nothing else may be wrong."""
    chromium = need("chromium", "chromium-browser", "google-chrome")
    url, *others = arguments
    said = json.loads(run(node, script, chromium, url, str(folder), *others))
    where = f"screenshots in {folder}"
    assert "error" not in said["seen"], (where, said)
    assert (said["faults"], said["complaints"]) == ([], []), where
    return said["seen"]


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("size", "language"), [("laptop", "en"), ("phone", "zh")])
def test_everything_about_ones_own_account(live, node, tmp_path, size, language):
    url = live().url
    _, code = invites.create(parse(InviteInput, {"dailyImages": 77}))

    seen = use(node, "account_page.mjs", tmp_path, url, size, language, code)

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
