"""Remote engines from models.toml to the image: worker.py as a process, against local servers."""

import signal

import pytest

import app as service
import db
import engines
from engines import catalog
from images import queue_status
from tests.fake_comfyui import FakeComfyUI
from tests.fake_openai import PNG, FakeOpenAI
from tests.fake_sdwebui import FakeWebUI
from tests.pictures import opened
from tests.servers import ROOT, wait_until
from tests.test_queue import quota, record
from tests.test_worker import files, row, wait_for

KEY = "sk-a-key-nobody-may-see"
MODELS = """
[gpt]
label = "A paid one"
engine = "openai_images"
sizes = ["64x64"]
quality = ["low", "high"]
[gpt.options]
base_url = "{openai}/v1"
model = "gpt-image-1"
api_key_env = "TEST_API_KEY"

[comfy]
label = "A workflow"
engine = "comfyui"
sizes = ["64x64"]
steps = {{ min = 1, max = 50, default = 4 }}
guidance = {{ min = 1, max = 20, default = 7 }}
sampler = ["euler"]
[comfy.options]
base_url = "{comfyui}"
workflow = "{workflow}"

[sd]
label = "One at home"
engine = "sdwebui"
negative_prompt = true
width = {{ min = 64, max = 512, default = 64, step = 8 }}
height = {{ min = 64, max = 512, default = 64, step = 8 }}
steps = {{ min = 1, max = 50, default = 4 }}
sampler = ["Euler", "DPM++ SDE"]
[sd.options]
base_url = "{webui}"
"""


@pytest.fixture
def openai():
    server = FakeOpenAI()
    yield server
    server.close()


@pytest.fixture
def webui():
    server = FakeWebUI()
    yield server
    server.close()


@pytest.fixture
def comfyui():
    server = FakeComfyUI()
    yield server
    server.close()


@pytest.fixture
def declared(settings, tmp_path, openai, webui, comfyui):
    settings.MODELS_FILE = tmp_path / "models.toml"
    workflow = ROOT / "docs" / "engines" / "comfyui-text-to-image.json"
    urls = {"openai": openai.url, "webui": webui.url, "comfyui": comfyui.url}
    settings.MODELS_FILE.write_text(MODELS.format(workflow=workflow, **urls))
    catalog.load.cache_clear()
    queue_status.current.forget()
    yield
    catalog.load.cache_clear()


@pytest.fixture
def worker(declared, start_worker):
    return lambda: start_worker("worker.py", TEST_API_KEY=KEY)


@pytest.fixture
def cli(database):
    runner = service.app.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


def ask(person, model: str, **body) -> int:
    body = {"prompt": "a secret fox", "model": model, **body}
    return person.post("/api/v1/images/generate", json=body).json["data"]["records"][0]["id"]


def listed(person) -> dict:
    queue_status.current.forget()
    return {model["name"]: model for model in person.get("/api/v1/models").json["data"]["models"]}


# -- The good case ------------------------------------------------------------------------------


def test_a_paid_picture_is_brought_home_with_what_is_known_of_it(alice, openai, worker):
    openai.mode, openai.revised_prompt = "url", "a small secret fox"
    started = worker()

    made = wait_for(alice, ask(alice, "gpt", quality="high"), "completed")

    image = opened(alice.get(made["imageUrl"]).data)
    assert image.size == opened(PNG).size and image.text["parameters"].startswith("a secret fox\n")
    assert (
        made["params"]["revised_prompt"] == "a small secret fox" and made["params"]["seed"] is None
    )
    assert openai.asked()[0].body["quality"] == "high"
    assert KEY not in started.said() and "secret fox" not in started.said()


def test_a_picture_from_home_says_the_seed_it_was_made_with(alice, webui, worker):
    worker()

    made = wait_for(alice, ask(alice, "sd", seed=42, negative_prompt="rain"), "completed")

    image = alice.get(made["imageUrl"]).data
    assert made["params"]["seed"] == webui.bodies[0]["seed"] == 42
    assert (made["width"], made["params"]["width"]) == opened(image).size
    assert "Negative prompt: rain\n" in opened(image).text["parameters"]


# -- Canceled, killed, unavailable ------------------------------------------------------------


def test_a_cancel_reaches_the_engine(alice, settings, webui, worker):
    webui.hold_at = 2
    worker()
    number = ask(alice, "sd")
    wait_until(webui.held.is_set, what="the picture half done")

    alice.post(f"/api/v1/images/{number}/cancel")

    wait_until(lambda: webui.interrupts, what="the interrupt")
    assert record(alice, number)["status"] == "canceled" and not files(settings)


def test_a_worker_killed_while_a_paid_request_is_out_does_not_repeat_it(alice, openai, worker):
    openai.mode = "hang"
    first = worker()
    number = ask(alice, "gpt")
    wait_until(openai.asked, what="the request")

    first.end(signal.SIGKILL)
    openai.mode = "b64"
    db.execute("UPDATE image_generations SET lease_until = 1 WHERE id = %s", number)
    worker()

    assert wait_for(alice, number, "failed")["errorCode"] == "outcome_unknown"
    assert len(openai.asked()) == 1 and quota(alice)["used"] == 0


def test_a_worker_killed_while_a_server_at_home_draws_has_it_drawn_again(alice, webui, worker):
    webui.hold_at = 2
    first = worker()
    number = ask(alice, "sd")
    wait_until(webui.held.is_set, what="the picture half done")

    first.end(signal.SIGKILL)
    webui.hold_at = None
    webui.go.set()
    db.execute("UPDATE image_generations SET lease_until = 1 WHERE id = %s", number)
    worker()

    wait_for(alice, number, "completed")
    assert len(webui.bodies) == 2


def test_a_job_survives_a_restart_of_its_engine(alice, comfyui, worker):
    comfyui.hold_at = ("3", 2)
    started = worker()
    number = ask(alice, "comfy")
    assert comfyui.held.wait(30)

    comfyui.restart()
    wait_until(lambda: row(number)["status"] == "pending", what="the job's return to the queue")
    comfyui.go.set()
    db.execute("UPDATE image_generations SET not_before = 0")

    wait_for(alice, number, "completed")
    assert row(number)["attempt"] == 2 and "secret fox" not in started.said()


def test_jobs_of_an_unavailable_engine_wait_and_cost_no_attempt(alice, webui, openai, worker):
    webui.close()
    worker()
    waiting, other = ask(alice, "sd"), ask(alice, "gpt")

    wait_for(alice, other, "completed")
    wait_until(lambda: listed(alice)["sd"]["reason"] == "生成引擎暂时不可用", what="the report")
    models_now = listed(alice)

    assert (row(waiting)["status"], row(waiting)["attempt"]) == ("pending", 0)
    assert (models_now["sd"]["available"], models_now["gpt"]["available"]) == (False, True)
    assert record(alice, waiting)["etaSeconds"] is None

    again = FakeWebUI(port=webui.server.server_port)
    wait_for(alice, waiting, "completed")
    again.close()


def test_a_refused_key_fails_the_job_and_says_so(alice, openai, worker):
    openai.mode = "no key"
    worker()

    failed = wait_for(alice, ask(alice, "gpt"), "failed")

    assert failed["errorCode"] == "engine_account" and quota(alice)["used"] == 0


def test_a_paid_request_is_not_repeated_after_the_error_of_a_gateway(alice, openai, worker):
    openai.mode = "gateway"
    worker()

    failed = wait_for(alice, ask(alice, "gpt"), "failed")

    assert failed["errorCode"] == "outcome_unknown" and quota(alice)["used"] == 0
    assert len(openai.asked()) == 1


def test_a_record_names_the_task_that_may_have_been_charged(alice, openai, worker):
    openai.mode, openai.reply = "reply", (200, b'{"task_id": "a-task-77"}', "application/json")
    worker()

    failed = wait_for(alice, ask(alice, "gpt"), "failed")

    assert failed["errorCode"] == "outcome_unknown"
    assert "a-task-77" in failed["errorMessage"]
    assert len(openai.asked()) == 1


# -- Sizes that an engine cannot make ---------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "multiple"),
    [
        ("`height` and `width` have to be divisible by 8 but are 100 and 64.", 8),
        ("Height and width must be divisible by 16", 16),
        ("Height must be divisible by 16 (got 100). Please adjust the height.", 16),
        ("`width` must be divisible by 32 but is 100.", 32),
        ("WIDTH (100) should be a multiple of 64", 64),
        ("image size has to be\na multiple of `14`", 14),
        ("The resolution must be in multiples of 28 pixels", 28),
        ("num_channels must be divisible by 4", 0),
        ("height and width are too large", 0),
        ("", 0),
    ],
)
def test_the_multiple_that_an_error_asks_for_is_read(text, multiple):
    assert engines.required_multiple(text) == multiple


# -- flask engines check ----------------------------------------------------------------------


def test_engines_check_tries_each_model(declared, cli, webui, openai, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)

    done = cli("engines", "check")

    lines = {line.split()[0]: line for line in done.output.splitlines()}
    assert done.exit_code == 0, done.output
    assert "4 samplers" in lines["sd"] and "made 8x8 png" in lines["sd"]
    assert webui.bodies and not openai.asked(), "what costs money is not made for a check"
    assert KEY not in done.output


def test_engines_check_compares_the_samplers_on_offer(declared, cli, webui):
    webui.samplers.remove("DPM++ SDE")

    done = cli("engines", "check", "sd")

    assert done.exit_code == 1 and "no sampler DPM++ SDE" in done.output


def test_engines_check_says_what_is_wrong(declared, cli, webui):
    webui.close()

    done = cli("engines", "check")

    lines = {line.split()[0]: line for line in done.output.splitlines()}
    assert done.exit_code == 1
    assert "TEST_API_KEY is not set" in lines["gpt"] and "engine_unavailable" in lines["sd"]


def test_engines_check_knows_the_models(declared, cli):
    done = cli("engines", "check", "nope")

    assert done.exit_code == 1 and "gpt, comfy, sd" in done.output


def test_engines_check_tries_a_model_that_needs_a_picture(settings, cli, tmp_path):
    settings.MODELS_FILE = tmp_path / "models.toml"
    settings.MODELS_FILE.write_text(
        '[edits]\nlabel = "E"\nengine = "painter"\nimages = { min = 1 }\n'
        'sizes = ["512x512"]\npixels = { min = 262144, max = 262144 }\n'
    )
    catalog.load.cache_clear()

    done = cli("engines", "check")

    assert (done.exit_code, "made 512x512 png" in done.output) == (0, True)
