"""The reference client's collection, as people use it: gallery, pictures, trash and links."""

import pytest
import requests

from tests.browser import use

PASSWORD = "secret1"
SEEN = {
    "begun": "true",
    "address": "",
    "order": True,
    "zip": "zip",
    "stays": True,
    "stripped": "png",
    "days": 90,
    "shares": 0,
    "trash": 0,
    "end": "reached",
}


def open_account(url: str, pictures: int) -> str:
    """Open an account with pictures of many shapes, and return its token."""
    account = {"username": "wanda", "email": "wanda@example.com", "password": PASSWORD}
    requests.post(f"{url}/api/auth/register", data=account).raise_for_status()
    token = requests.post(f"{url}/api/auth/login", json=account).json()["data"]["token"]
    for number in range(pictures):
        params = {"width": 64 + number % 3 * 32, "height": 64 + number % 2 * 32}
        requests.post(
            f"{url}/api/v1/images/generate-test",
            json={"prompt": f"picture {number}", "params": params},
            headers={"Authorization": f"Bearer {token}"},
        ).raise_for_status()
    return token


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("size", "language", "chosen"), [("laptop", "en", 4), ("phone", "zh", 2), ("wide", "en", 4)]
)
def test_a_collection_is_tagged_searched_shared_and_thrown_away(
    live, tmp_path, size, language, chosen
):
    url = live(TRASH_DAYS="7").url
    token = open_account(url, 12)

    seen = use("gallery_page.mjs", url, tmp_path, size, language, token)

    assert seen == {**SEEN, "range": chosen}
