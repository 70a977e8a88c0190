"""What people call the API with: a client made from its document, and the page that shows it."""

import json

import pytest
import requests

from tests.browser import NODE, command, install, need, run
from tests.servers import ROOT, wait_until

TOOLS = NODE / "node_modules" / ".bin"


def test_lock_file_names_no_host():
    assert "://" not in (NODE / "package-lock.json").read_text()


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_typescript_client_made_from_the_document_works(live):
    install(NODE)
    url = live().url
    run(f"{TOOLS}/openapi-typescript", f"{url}/api/openapi.json", "--output", "build/api.d.ts")
    run(f"{TOOLS}/tsc")

    result = json.loads(run(need("node"), "build/client.js", url))

    fox, hen, refusal = result["submitted"]
    assert result["refusal"] == "wrong"
    assert (fox[0]["prompt"], hen[0]["status"], refusal) == ("a fox", "pending", "invalid_input")
    assert result["history"] == ["a hen", "a fox"]
    assert requests.get(url + result["avatar"]).headers["Content-Type"] == "image/png"


UNSERVED = """
[unserved]
label = "A model without a worker, so that its images wait"
engine = "painter"
width = { min = 64, max = 1024, default = 64 }
height = { min = 64, max = 1024, default = 64 }
"""


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_every_call_of_the_docs_page_works_at_the_first_click(
    live, start_worker, settings, tmp_path
):
    settings.MODELS_FILE = tmp_path / "models.toml"
    settings.MODELS_FILE.write_text((ROOT / "models.toml").read_text() + UNSERVED)
    url = live(METRICS="on", MODELS_FILE=str(settings.MODELS_FILE)).url
    start_worker("worker.py", WORKER_MODELS="test_model")
    wait_until(lambda: requests.get(f"{url}/api/health/ready").ok, what="a worker")

    printed = run(*command("docs_page.mjs", url, tmp_path / "docs.png"))

    said = json.loads(printed)
    assert said["results"] == said["expected"]
    assert (said["complaints"], said["strangers"]) == ([], [])
