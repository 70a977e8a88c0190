"""The engine for Stable Diffusion WebUIs, against a local server that speaks their API."""

import io
import json
import re
import threading
import time

import pytest
from PIL import Image, ImageChops

import config
from engines import (
    EngineError,
    ImageRequest,
    NoResponse,
    PermanentError,
    TransientError,
    catalog,
    sdwebui,
)
from engines.options import SDWebUI
from tests.engine_calls import Canceled, everything_of, ignore
from tests.fake_sdwebui import FLAVOURS, FakeWebUI, decoded, picture
from tests.inputs import encoded, hole, noise, plain
from tests.servers import ROOT, free_port

PROMPT, PASSWORD = "a fox nobody may read of", "tr0ub4dor-and-3"


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(sdwebui, "PROGRESS_INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(sdwebui, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(sdwebui, "INTERRUPT_WAIT_SECONDS", 1)
    monkeypatch.setenv("WEBUI_PASSWORD", PASSWORD)


@pytest.fixture
def start():
    """Start a server of the flavour given."""
    servers = []

    def start(flavour="a1111"):
        servers.append(FakeWebUI(flavour))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def webui(start):
    return start()


@pytest.fixture(params=FLAVOURS)
def any_webui(request, start):
    return start(request.param)


def request(webui, **parameters):
    """Return a request for this server; parameters that it does not have become options."""
    ours = {
        name: parameters.pop(name)
        for name in list(parameters)
        if name in ImageRequest.__dataclass_fields__
    }
    return ImageRequest(PROMPT, options=SDWebUI(base_url=webui.url, **parameters), **ours)


def failure(request, on_progress=ignore):
    with pytest.raises(EngineError) as caught:
        sdwebui.make(request, on_progress)
    return caught.value


def seen_of(request, until):
    """Return the list of percents reported, and a call of make() that fills it."""
    percents = []

    def on_progress(done, total):
        percents.append(100 * done // total)
        until(percents[-1])

    return percents, lambda: sdwebui.make(request, on_progress)


def cancel_when(is_time):
    def on_progress(done, total):
        if is_time(done):
            raise Canceled

    return on_progress


# -- A picture ----------------------------------------------------------------------------------


def test_returns_the_picture_and_what_it_was_made_with(webui):
    generated = sdwebui.make(request(webui, seed=7, sampler="Euler a"), ignore)

    assert generated.data == picture()
    assert generated.params == {"seed": 7, "sampler": "Euler a", "checkpoint": "dreamy.v2"}


def test_a_server_without_checkpoint_names_gives_the_hash(start):
    generated = sdwebui.make(request(start("sdnext")), ignore)

    assert generated.params["checkpoint"] == "6ce0161689"


def test_a_seed_the_server_chose_comes_back(webui):
    generated = sdwebui.make(request(webui, seed=None), ignore)

    assert generated.params["seed"] == webui.seeds[0]


def test_sends_what_the_request_says(webui):
    sdwebui.make(
        request(
            webui,
            negative_prompt="fog",
            width=640,
            steps=8,
            guidance=4.5,
            checkpoint="plain",
            scheduler="Karras",
        ),
        ignore,
    )

    body = webui.bodies[0]
    assert body.pop("force_task_id").startswith("task(")
    assert body == {
        "prompt": PROMPT, "negative_prompt": "fog", "width": 640, "height": 512, "steps": 8,
        "cfg_scale": 4.5, "seed": 0, "scheduler": "Karras",
        "override_settings": {"sd_model_checkpoint": "plain"},
        "batch_size": 1, "n_iter": 1, "send_images": True, "save_images": False,
    }  # fmt: skip


def test_leaves_out_what_the_request_lacks(webui):
    sdwebui.make(request(webui, steps=None, seed=None), ignore)

    lacking = {
        "negative_prompt",
        "steps",
        "seed",
        "cfg_scale",
        "sampler_name",
        "scheduler",
        "override_settings",
    }
    assert not lacking & set(webui.bodies[0])


@pytest.mark.parametrize(
    ("extra", "sent"),
    [
        ({"clip_skip": 2}, {"clip_skip": 2}),
        ({"cfg_scale": 3}, {"cfg_scale": 3}),
        ({"save_images": True}, {"save_images": True}),
        ({"steps": 99, "prompt": "x"}, {"steps": 20, "prompt": PROMPT}),
        ({"batch_size": 4, "send_images": False}, {"batch_size": 1, "send_images": True}),
        (
            {"override_settings": {"eta": 1, "sd_model_checkpoint": "x"}},
            {"override_settings": {"eta": 1, "sd_model_checkpoint": "plain"}},
        ),
    ],
)
def test_extra_fills_in_what_the_request_does_not_say(webui, extra, sent):
    sdwebui.make(request(webui, checkpoint="plain", extra=extra), ignore)

    assert {name: webui.bodies[0][name] for name in sent} == sent


@pytest.mark.parametrize(("chosen", "sent"), [("", "Euler"), ("Euler a", "Euler a")])
def test_the_requests_sampler_goes_before_the_models(webui, chosen, sent):
    options = SDWebUI(base_url=webui.url, sampler="Euler")

    sdwebui.make(ImageRequest(PROMPT, sampler=chosen, options=options), ignore)

    assert webui.bodies[0]["sampler_name"] == sent


def test_takes_a_picture_in_a_data_url(webui):
    webui.change_reply = lambda reply: (
        reply | {"images": ["data:image/png;base64," + reply["images"][0]]}
    )

    assert sdwebui.make(request(webui), ignore).data == picture()


def test_a_picture_beyond_all_measure_is_refused(webui, monkeypatch):
    monkeypatch.setattr(config.settings, "MAX_RESULT_PIXELS", 10)

    assert str(failure(request(webui))) == "engine_error: an answer of more than 60 bytes"


@pytest.mark.parametrize(
    "info",
    [None, "", "{", "[]", "7", {"seed": 1}, '{"seed": "x", "sampler_name": 5}', '{"seed": -1}'],
)
def test_odd_info_is_no_failure(webui, info):
    webui.change_reply = lambda reply: reply | {"info": info}

    generated = sdwebui.make(request(webui), ignore)

    assert (generated.data, generated.params) == (picture(), {})


def test_gives_user_name_and_password(webui):
    webui.credentials = ("ann", PASSWORD)

    generated = sdwebui.make(request(webui, username="ann", password_env="WEBUI_PASSWORD"), ignore)

    assert generated.data == picture()


def test_nobody_is_told_that_it_costs_money(webui):
    told = []

    sdwebui.make(request(webui, before_send=lambda: told.append(1)), ignore)

    assert told == []


# -- Progress -----------------------------------------------------------------------------------


def test_tells_how_far_the_picture_is(any_webui):
    any_webui.hold_at = 5
    percents, draw = seen_of(
        request(any_webui, steps=10), lambda percent: percent < 50 or any_webui.go.set()
    )

    draw()

    assert max(percents) in (50, 51)
    assert percents == sorted(percents)


def test_anothers_picture_is_not_shown_as_ours(any_webui):
    with any_webui.busy_with_another():
        percents, draw = seen_of(
            request(any_webui), lambda percent: any_webui.polls > 5 and any_webui.go.set()
        )
        thread = threading.Thread(target=draw)
        thread.start()
        assert any_webui.go.wait(5)
    thread.join()

    assert set(percents) == {0}


def test_reports_in_time_while_nobody_answers_for_progress(any_webui):
    any_webui.progress_hangs.clear()
    percents, draw = seen_of(
        request(any_webui), lambda percent: len(percents) > 20 and any_webui.progress_hangs.set()
    )

    draw()

    assert len(percents) > 20


@pytest.mark.parametrize(
    "reply",
    [
        "nonsense",
        [],
        {"progress": "x", "state": 5},
        {"progress": float("nan"), "state": {"job": 1}},
    ],
)
def test_odd_progress_is_no_failure(webui, reply):
    webui.hold_at = 5
    for name in ("progress", "internal_progress"):
        webui.server.app.view_functions[name] = lambda: json.dumps(reply)
    percents, draw = seen_of(request(webui), lambda percent: len(percents) > 10 and webui.go.set())

    assert draw().data == picture()


# -- Cancel -------------------------------------------------------------------------------------


def test_cancel_interrupts_our_picture(any_webui):
    any_webui.hold_at = 5

    with pytest.raises(Canceled):
        sdwebui.make(request(any_webui, steps=10), cancel_when(lambda percent: percent > 0))

    assert any_webui.interrupts == 1


def test_cancel_before_the_first_poll_interrupts_our_picture(any_webui, monkeypatch):
    monkeypatch.setattr(sdwebui, "POLL_SECONDS", 60)
    any_webui.hold_at = 5

    with pytest.raises(Canceled):
        sdwebui.make(request(any_webui), cancel_when(lambda percent: any_webui.held.is_set()))

    assert any_webui.interrupts == 1


def test_cancel_leaves_anothers_picture_alone(any_webui):
    with any_webui.busy_with_another(), pytest.raises(Canceled):
        sdwebui.make(request(any_webui), cancel_when(lambda percent: any_webui.polls > 5))

    assert any_webui.interrupts == 0


def test_cancel_does_not_wait_for_a_server_that_hangs(webui, monkeypatch):
    monkeypatch.setattr(sdwebui, "INTERRUPT_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(sdwebui, "STATUS_TIMEOUT_SECONDS", 120)
    webui.progress_hangs.clear()
    started = time.monotonic()

    with pytest.raises(Canceled):
        sdwebui.make(request(webui), cancel_when(lambda percent: True))

    assert time.monotonic() - started < 60


def test_what_was_canceled_before_it_was_sent_is_never_sent(webui, monkeypatch):
    monkeypatch.setattr(sdwebui, "INTERRUPT_WAIT_SECONDS", 0.1)
    before = set(threading.enumerate())
    webui.progress_hangs.clear()
    with pytest.raises(Canceled):
        sdwebui.make(request(webui), cancel_when(lambda percent: True))

    webui.progress_hangs.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(3)

    assert webui.bodies == []


# -- Failures -----------------------------------------------------------------------------------


def answer(status, kind="", detail="", text=""):
    """Let txt2img respond with an error of this server, whose text quotes the prompt."""
    return lambda webui: lambda: webui.error(status, kind, detail, f"{text} while drawing {PROMPT}")


ERRORS = [
    (
        answer(500, "OutOfMemoryError", text="CUDA out of memory"),
        TransientError,
        "engine_busy",
        "out of GPU memory",
    ),
    (answer(500, "RuntimeError"), TransientError, "engine_unavailable", "500 RuntimeError"),
    (answer(500, f"Error: {PROMPT}"), TransientError, "engine_unavailable", "500"),
    (answer(503), TransientError, "engine_unavailable", "503"),
    (answer(504), NoResponse, "engine_unavailable", "504"),
    (
        answer(429, "HTTPException", "rate limit exceeded"),
        TransientError,
        "engine_busy",
        "429 HTTPException",
    ),
    (
        answer(401, "HTTPException", "Unauthorized"),
        PermanentError,
        "engine_account",
        "401 HTTPException",
    ),
    (answer(403), PermanentError, "engine_account", "403"),
    (
        answer(404, "HTTPException", "Sampler not found"),
        PermanentError,
        "engine_refused",
        "no such sampler",
    ),
    (
        answer(400, "HTTPException", "Sampler not found"),
        PermanentError,
        "engine_refused",
        "no such sampler",
    ),
    (answer(404, "HTTPException", "Not Found"), TransientError, "engine_unavailable", "--api"),
    (answer(405), TransientError, "engine_unavailable", "--api"),
    (
        answer(422, "HTTPException", f"Script '{PROMPT}' not found"),
        PermanentError,
        "engine_refused",
        "422",
    ),
    (answer(302), PermanentError, "engine_error", "302"),
    (lambda webui: webui.hang_up, NoResponse, "engine_unavailable", ""),
    (lambda webui: webui.break_off, NoResponse, "engine_unavailable", ""),
    (lambda webui: lambda: f"<html>{PROMPT}", PermanentError, "engine_error", "200 without JSON"),
    (lambda webui: lambda: ("", 200), PermanentError, "engine_error", "200 without JSON"),
    (lambda webui: lambda: ["x"], PermanentError, "bad_picture", ""),
    (lambda webui: lambda: {"parameters": PROMPT}, PermanentError, "bad_picture", ""),
    (lambda webui: lambda: {"images": None, "info": ""}, PermanentError, "bad_picture", ""),
    (lambda webui: lambda: {"images": [5]}, PermanentError, "bad_picture", "not base64"),
    (lambda webui: lambda: {"images": [PROMPT]}, PermanentError, "bad_picture", "not base64"),
    (lambda webui: lambda: {"images": ["图片"]}, PermanentError, "bad_picture", "not base64"),
    (lambda webui: lambda: {"images": [""]}, PermanentError, "bad_picture", "not base64"),
    (
        lambda webui: lambda: {"images": [], "info": ""},
        TransientError,
        "engine_unavailable",
        "interrupted",
    ),
]


@pytest.mark.parametrize(("instead", "kind", "code", "detail"), ERRORS)
def test_an_error_says_what_to_make_of_it_and_keeps_secrets(webui, instead, kind, code, detail):
    webui.instead, webui.credentials = instead(webui), ("ann", PASSWORD)

    error = failure(request(webui, username="ann", password_env="WEBUI_PASSWORD"))

    assert (type(error), error.code) == (kind, code)
    assert detail in str(error)
    assert_keeps_secrets(error)


def assert_keeps_secrets(error):
    assert not [secret for secret in (PROMPT, PASSWORD) if secret in everything_of(error)]


def test_a_refused_field_is_named_without_its_value(webui):
    error = failure(request(webui, extra={"seed": PROMPT}, seed=None))

    assert (type(error), str(error), error.shown) == (
        PermanentError,
        "engine_refused: 422 seed",
        "seed",
    )
    assert_keeps_secrets(error)


def test_an_unknown_sampler_is_final(start):
    error = failure(request(start("sdnext"), sampler="Guess"))

    assert (type(error), error.code, error.shown) == (PermanentError, "engine_refused", "sampler")


def test_an_unavailable_server_was_asked_nothing():
    error = failure(
        ImageRequest(PROMPT, options=SDWebUI(base_url=f"http://127.0.0.1:{free_port()}"))
    )

    assert (type(error), error.code) == (TransientError, "engine_unavailable")
    assert_keeps_secrets(error)


def test_a_wrong_password_is_the_operators_to_mend(webui):
    webui.credentials = ("ann", "another")

    error = failure(request(webui, username="ann", password_env="WEBUI_PASSWORD"))

    assert (type(error), error.code) == (PermanentError, "engine_account")
    assert_keeps_secrets(error)


def test_a_password_that_is_not_set_is_the_operators_to_mend(webui, monkeypatch):
    monkeypatch.delenv("WEBUI_PASSWORD")

    error = failure(request(webui, username="ann", password_env="WEBUI_PASSWORD"))

    assert (error.code, webui.bodies) == ("engine_account", [])


def test_a_picture_that_takes_too_long_is_interrupted(any_webui):
    any_webui.hold_at = 5

    error = failure(request(any_webui, timeout_seconds=0.3))

    assert (type(error), any_webui.interrupts) == (NoResponse, 1)
    assert_keeps_secrets(error)


def test_an_unfinished_picture_is_not_passed_off_as_finished(any_webui):
    any_webui.hold_at = 5

    error = failure(
        request(any_webui),
        lambda done, total: any_webui.held.is_set() and any_webui.interrupt_by_somebody(),
    )

    assert (type(error), error.code) == (TransientError, "engine_unavailable")
    assert any_webui.bodies


def test_an_error_leaves_the_next_in_the_queue_alone(any_webui):
    any_webui.instead = answer(500, "RuntimeError")(any_webui)

    failure(request(any_webui))

    assert any_webui.interrupts == 0


# -- Check --------------------------------------------------------------------------------------


def test_check_counts_what_the_server_has(any_webui):
    assert sdwebui.check(SDWebUI(base_url=any_webui.url)) == ["2 checkpoints", "4 samplers"]


@pytest.mark.parametrize(
    "name",
    [
        "sd15/dreamy.v2.safetensors [6ce0161689]", "sd15/dreamy.v2.safetensors",
        "sd15_dreamy.v2", "dreamy.v2", "dreamy.v2 [6ce0161689]", "6ce0161689",
        "plain.ckpt", "plain",
    ],
)  # fmt: skip
def test_check_knows_a_checkpoint_by_each_of_its_names(webui, name):
    assert sdwebui.check(SDWebUI(base_url=webui.url, checkpoint=name))


@pytest.mark.parametrize("name", ["dreamy", "v2", "None", "6ce01616", "Plain"])
def test_check_finds_that_a_checkpoint_is_missing(webui, name):
    with pytest.raises(PermanentError, match="engine_refused: no such checkpoint"):
        sdwebui.check(SDWebUI(base_url=webui.url, checkpoint=name))


@pytest.mark.parametrize("name", ["Euler", "Euler a", "DPM++ 2M", "DPM++ 2M Karras"])
def test_check_knows_a_sampler_with_and_without_scheduler(webui, name):
    assert sdwebui.check(SDWebUI(base_url=webui.url, sampler=name))


@pytest.mark.parametrize("name", ["euler", "DPM++", "DPM++ 2M++", "Eulers"])
def test_check_finds_that_a_sampler_is_missing(webui, name):
    with pytest.raises(PermanentError, match="engine_refused: no such sampler"):
        sdwebui.check(SDWebUI(base_url=webui.url, sampler=name))


def test_check_waits_for_a_server_that_has_no_api_yet(webui):
    with pytest.raises(TransientError, match=r"engine_unavailable: .* --api"):
        sdwebui.check(SDWebUI(base_url=f"{webui.url}/elsewhere"))


def test_check_finds_a_wrong_password(webui):
    webui.credentials = ("ann", "another")

    with pytest.raises(PermanentError, match="engine_account"):
        sdwebui.check(SDWebUI(base_url=webui.url, username="ann", password_env="WEBUI_PASSWORD"))


def test_check_finds_a_server_of_another_kind(webui):
    webui.server.app.view_functions["models"] = lambda: {"data": []}

    with pytest.raises(PermanentError, match="engine_error: not the API"):
        sdwebui.check(SDWebUI(base_url=webui.url))


@pytest.mark.parametrize("name", ["Karras", "karras", "SGM Uniform", "SGMUniform"])
def test_check_knows_a_scheduler_by_each_of_its_names(webui, name):
    assert sdwebui.check(SDWebUI(base_url=webui.url, scheduler=name))


@pytest.mark.parametrize("options", [{"scheduler": "Guess"}, {"extra": {"scheduler": "Guess"}}])
def test_check_finds_that_a_scheduler_is_missing(webui, options):
    with pytest.raises(PermanentError, match="engine_refused: no such scheduler"):
        sdwebui.check(SDWebUI(base_url=webui.url, **options))


def test_a_server_without_a_list_of_schedulers_is_not_asked_for_one(start):
    assert sdwebui.check(SDWebUI(base_url=start("sdnext").url, scheduler="Guess"))


def test_a_sampler_is_no_other_with_the_same_beginning(webui):
    webui.samplers.remove("Euler a")

    with pytest.raises(PermanentError, match="no such sampler"):
        sdwebui.check(SDWebUI(base_url=webui.url, sampler="Euler a"))


def test_the_choices_of_a_model_are_compared_too(any_webui):
    options = SDWebUI(base_url=any_webui.url)

    sdwebui.check_samplers(options, ["Euler", "DPM++ SDE"])
    with pytest.raises(PermanentError, match="engine_refused: no sampler Guess, Other"):
        sdwebui.check_samplers(options, ["Euler", "Guess", "Other"])


# -- The checkpoint and the sampler that were really used -----------------------------------------

FOLDERS = {
    "title": "xl\\base.v1.safetensors [aabbccddee]",
    "model_name": "xl_base.v1",
    "hash": "aabbccddee",
    "sha256": "aabbccddee" + "0" * 54,
    "filename": "C:\\models\\xl\\base.v1.safetensors",
}


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint": "gone.safetensors"},
        {"checkpoint": "dreamy.v2.safetensors [0000000000]"},
        {"checkpoint": "other/dreamy.v2.safetensors"},
        {"extra": {"override_settings": {"sd_model_checkpoint": "gone"}}},
    ],
)
def test_a_checkpoint_that_the_server_lacks_is_refused_before_it_draws(any_webui, options):
    error = failure(request(any_webui, **options))

    assert (type(error), error.code, error.shown) == (
        PermanentError,
        "engine_refused",
        "checkpoint",
    )
    assert any_webui.bodies == []


@pytest.mark.parametrize(
    "name", ["dreamy.v2", "sd15/dreamy.v2.safetensors [6ce0161689]", "plain.ckpt", "plain"]
)
def test_a_checkpoint_that_the_server_has_is_used(any_webui, name):
    sdwebui.make(request(any_webui, checkpoint=name), ignore)

    assert any_webui.bodies[0]["override_settings"] == {"sd_model_checkpoint": name}


def test_a_folder_may_be_written_with_either_slash(webui):
    webui.checkpoints.append({**FOLDERS})

    sdwebui.make(request(webui, checkpoint="xl/base.v1.safetensors"), ignore)

    assert webui.bodies[0]["override_settings"] == {"sd_model_checkpoint": FOLDERS["title"]}


def test_a_hash_that_the_list_has_not_yet_is_no_other_checkpoint(webui):
    assert sdwebui.make(request(webui, checkpoint="plain.ckpt [0123456789]"), ignore)


@pytest.mark.parametrize("flavour", ["a1111", "sdnext"])
def test_a_picture_of_another_checkpoint_is_refused(start, flavour):
    webui = start(flavour)
    webui.change_reply = lambda reply: (
        reply | {"info": json.dumps({"sd_model_hash": "ffffffffff", "sd_model_name": "fallback"})}
    )

    error = failure(request(webui, checkpoint="dreamy.v2"))

    assert (type(error), error.code, error.shown) == (
        PermanentError,
        "engine_refused",
        "checkpoint",
    )
    assert "used another" in str(error)


@pytest.mark.parametrize("info", ["", "{}", '{"sd_model_name": "dreamy.v2.safetensors"}'])
def test_a_server_that_says_little_of_the_checkpoint_is_believed(webui, info):
    webui.change_reply = lambda reply: reply | {"info": info}

    assert sdwebui.make(request(webui, checkpoint="dreamy.v2"), ignore)


def test_a_sampler_that_the_server_does_not_confirm_is_not_recorded(webui):
    webui.change_reply = lambda reply: reply | {"info": ""}

    assert sdwebui.make(request(webui, sampler="Euler"), ignore).params == {"sampler": None}


def test_what_the_server_used_instead_is_recorded(webui):
    used = {"sampler_name": "Euler", "steps": 12, "seed": 9}
    webui.change_reply = lambda reply: reply | {"info": json.dumps(used)}

    generated = sdwebui.make(request(webui, sampler="Guess", steps=20, seed=9), ignore)

    assert generated.params == {"sampler": "Euler", "steps": 12, "seed": 9}


ODD = [
    ({"width": 513}, "", 8),
    ({"height": 100}, "", 8),
    ({"width": 520}, "`height` and `width` have to be divisible by 16 but are 512 and 520.", 16),
    ({"width": 520}, "Width must be a multiple of 64", 64),
]


@pytest.mark.parametrize(("size", "text", "multiple"), ODD)
@pytest.mark.parametrize("flavour", ["sdnext", "forge"])
def test_a_size_that_the_server_fails_at_is_final(start, flavour, size, text, multiple):
    webui = start(flavour)
    webui.instead = lambda: webui.error(500, "ValueError", text=text)

    error = failure(request(webui, **size))

    assert (type(error), error.code) == (PermanentError, "engine_refused")
    assert error.shown == f"width and height must be multiples of {multiple}"


def test_out_of_memory_at_an_odd_size_is_not(webui):
    webui.instead = lambda: webui.error(500, "OutOfMemoryError")

    assert failure(request(webui, width=513)).code == "engine_busy"


# -- Docs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["sdwebui.md", "sdwebui.zh-CN.md"])
def test_the_example_in_the_docs_is_a_model(tmp_path, page):
    text = (ROOT / "docs/engines" / page).read_text(encoding="utf-8")
    example = tmp_path / "models.toml"
    example.write_text(re.search(r"```toml\n(.*?)```", text, re.S)[1], encoding="utf-8")

    model = catalog.load(example)["dreamshaper"]

    assert (model.engine, model.options.password_env) == ("sdwebui", "WEBUI_PASSWORD")


@pytest.mark.parametrize("page", ["sdwebui.md", "sdwebui.zh-CN.md"])
def test_the_docs_tell_every_option(page):
    text = (ROOT / "docs/engines" / page).read_text(encoding="utf-8")

    assert [name for name in SDWebUI.model_fields if f"`{name}`" not in text] == []


# -- Pictures that come with the prompt ---------------------------------------------------------


def drawn(asked):
    return Image.open(io.BytesIO(sdwebui.make(asked, ignore).data))


def test_a_picture_goes_to_img2img(any_webui):
    asked = request(any_webui, images=(plain("black"),), strength=0.4, width=96, height=96, seed=7)

    generated = sdwebui.make(asked, ignore)

    body = any_webui.bodies[-1]
    assert (body["denoising_strength"], body["width"], body["seed"]) == (0.4, 96, 7)
    assert "mask" not in body and "inpainting_fill" not in body
    assert Image.open(io.BytesIO(generated.data)).getpixel((9, 9)) == (102, 102, 102)
    assert generated.params["seed"] == 7


def test_what_the_mask_covers_stays_as_it_is(webui):
    image = noise()

    result = drawn(request(webui, images=(encoded(image),), mask=hole(), width=96, height=96))

    mask = decoded(webui.bodies[-1]["mask"])
    assert (mask.mode, mask.getpixel((48, 48)), mask.getpixel((2, 2))) == ("L", 255, 0)
    assert result.crop((24, 24, 72, 72)).getcolors() == [(48 * 48, (255, 255, 255))]
    result.paste(image.crop((24, 24, 72, 72)), (24, 24))
    assert not ImageChops.difference(result, image).getbbox()


def test_a_size_is_snapped_and_picture_and_mask_follow(webui):
    asked = request(
        webui, images=(plain("red", (40, 40)),), mask=hole((40, 40)), width=101, height=70
    )

    result = drawn(asked)

    body = webui.bodies[-1]
    assert (body["width"], body["height"], result.size) == (104, 72, (104, 72))
    assert decoded(body["mask"]).size == decoded(body["init_images"][0]).size == (104, 72)


def test_extra_has_the_last_word_on_how_a_mask_is_used(webui):
    extra = {"inpainting_fill": 0, "mask_blur": 0, "mask": "nonsense"}

    drawn(request(webui, images=(plain("red"),), mask=hole(), extra=extra))

    body = webui.bodies[-1]
    assert (body["inpainting_fill"], body["mask_blur"], body["inpaint_full_res"]) == (0, 0, False)
    assert decoded(body["mask"]).mode == "L"


def test_a_picture_with_clear_parts_stands_on_white(webui):
    clear = encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 0)))

    drawn(request(webui, images=(clear,), width=16, height=16))

    assert decoded(webui.bodies[-1]["init_images"][0]).getpixel((3, 3)) == (255, 255, 255)


def test_canceling_an_image_of_a_picture_interrupts_the_server(webui):
    webui.hold_at = 3

    with pytest.raises(Canceled):
        sdwebui.make(request(webui, images=(plain("red"),)), cancel_when(lambda done: done > 0))

    assert webui.interrupts == 1
