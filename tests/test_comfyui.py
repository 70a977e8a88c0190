"""The engine for ComfyUI, against a local server that speaks its protocol, websocket included."""

import dataclasses
import io
import json
import logging
import threading
import time
from pathlib import Path

import pytest
from PIL import Image, ImageChops

import engines
from config import SettingError
from engines import (
    EngineError,
    ImageRequest,
    NoResponse,
    PermanentError,
    TransientError,
    catalog,
    comfyui,
)
from engines.options import ComfyUI
from tests.engine_calls import Canceled, everything_of, ignore
from tests.fake_comfyui import FakeComfyUI, picture
from tests.inputs import encoded, hole, noise, plain
from tests.servers import free_port, wait_until

NO_QUEUE = (200, b'{"queue_running": [], "queue_pending": []}')
PROMPT, NEGATIVE, PASSWORD = (
    "a fox nobody may read of",
    "a hen nobody may read of",
    "tr0ub4dor-and-3",
)
DOCS = Path(__file__).resolve().parent.parent / "docs" / "engines"
EMPTY_IMAGE, TEXT_TO_IMAGE = DOCS / "comfyui-empty-image.json", DOCS / "comfyui-text-to-image.json"


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(comfyui, "PROGRESS_INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(comfyui, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("COMFYUI_PASSWORD", PASSWORD)


@pytest.fixture
def often(monkeypatch):
    """Let the engine poll often although the websocket is connected."""
    monkeypatch.setattr(comfyui, "CONNECTED_POLL_SECONDS", 0.05)


@pytest.fixture
def short_cancel_wait(monkeypatch):
    """Let the engine wait only a short time until a canceled prompt is removed."""
    monkeypatch.setattr(comfyui, "CANCEL_WAIT_SECONDS", 0.2)


@pytest.fixture
def server():
    server = FakeComfyUI()
    yield server
    server.close()


@pytest.fixture
def other_server():
    server = FakeComfyUI()
    yield server
    server.close()


@pytest.fixture(params=["new", "old"])
def any_server(request):
    server = FakeComfyUI(is_old=request.param == "old")
    yield server
    server.close()


@pytest.fixture
def saved(tmp_path):
    """Save a workflow, given as a dict, or as the text of its file."""

    def save(workflow):
        path = tmp_path / "workflow.json"
        path.write_text(
            workflow if isinstance(workflow, str) else json.dumps(workflow), encoding="utf-8"
        )
        return path

    return save


def options(server, workflow=TEXT_TO_IMAGE, **changes):
    return ComfyUI(base_url=server.url, workflow=workflow, **changes)


def request(server, workflow=TEXT_TO_IMAGE, output_node="", **changes):
    given = {
        "negative_prompt": NEGATIVE,
        "width": 64,
        "height": 48,
        "steps": 4,
        "seed": 7,
        "guidance": 7.5,
    }
    given |= {"sampler": "euler", "options": options(server, workflow, output_node=output_node)}
    return ImageRequest(**{"prompt": PROMPT, **given, **changes})


def failure(request, on_progress=ignore, kind=EngineError):
    """Return the error of make(), after a check that nothing a log could show has a secret."""
    with pytest.raises(kind) as caught:
        comfyui.make(request, on_progress)
    text = everything_of(caught.value)
    assert not [secret for secret in (PROMPT, NEGATIVE, PASSWORD) if secret in text]
    return caught.value


def cancel_when(is_time):
    def on_progress(done, total):
        if is_time():
            raise Canceled

    return on_progress


def asked(server, what):
    return [body for path, body in server.asked if path == what]


def posted(server):
    """Return the inputs of each node in the prompt that was posted."""
    return {
        node_id: node["inputs"]
        for node_id, node in asked(server, "POST /prompt")[0]["prompt"].items()
    }


def in_background(call, *arguments):
    """Call in a thread; return the thread, and a list that will hold the result or the error."""
    outcome = []

    def run():
        try:
            outcome.append(call(*arguments))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def image_workflow(**more):
    image = {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0},
    }
    return {"1": image, **more}


def saver(prefix="fox", kind="SaveImage"):
    return {"class_type": kind, "inputs": {"images": ["1", 0], "filename_prefix": prefix}}


# -- A picture ----------------------------------------------------------------------------------


def test_returns_the_picture_the_workflow_saved(any_server):
    generated = comfyui.make(request(any_server), ignore)

    assert generated.data == picture(64, 48)
    assert generated.params == {}


def test_the_same_job_again_gives_the_picture_from_the_servers_cache(server):
    images = [comfyui.make(request(server), ignore) for _ in range(2)]

    assert images[0] == images[1]
    assert len(server.files) == 1


def test_websocket_tells_when_the_picture_is_done(server, monkeypatch):
    monkeypatch.setattr(comfyui, "CONNECTED_POLL_SECONDS", 120)
    started = time.monotonic()

    comfyui.make(request(server), ignore)

    assert time.monotonic() - started < 60


def test_user_name_and_password_go_to_pages_and_websocket(server):
    server.credentials = f"us:{PASSWORD}"
    given = options(server, username="us", password_env="COMFYUI_PASSWORD")

    generated = comfyui.make(request(server, options=given), ignore)

    assert generated.data == picture(64, 48)
    assert server.websocket_headers[0]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("more", "output_node", "prefix"),
    [
        ({"2": saver("first"), "3": saver("last")}, "", "last"),
        ({"3": saver("first"), "2": saver("last")}, "", "last"),
        ({"2": saver("first"), "3": saver("last")}, "2", "first"),
        ({"2": saver("saved"), "3": saver("seen", "PreviewImage")}, "", "saved"),
        ({"2": saver("saved"), "3": saver("seen", "PreviewImage")}, "3", "seen"),
        ({"3": saver("seen", "PreviewImage")}, "", "seen"),
    ],
)
def test_takes_the_picture_of_the_output_node_or_the_last_saved(
    server, saved, more, output_node, prefix
):
    workflow = saved(image_workflow(**more))

    comfyui.make(request(server, workflow, output_node), ignore)

    assert [name.split("_")[0] for name in server.viewed] == [prefix]


def test_server_forgets_the_prompt_afterwards(server):
    comfyui.make(request(server), ignore)

    assert server.history == {}


def test_logs_hold_no_prompt_and_no_password(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.credentials = f"us:{PASSWORD}"
    given = options(server, username="us", password_env="COMFYUI_PASSWORD")

    comfyui.make(request(server, options=given), ignore)

    assert not [secret for secret in (PROMPT, NEGATIVE, PASSWORD) if secret in caplog.text]


# -- Placeholders -------------------------------------------------------------------------------


def test_an_input_that_is_one_placeholder_gets_the_value_itself(server):
    comfyui.make(request(server), ignore)

    sampler = posted(server)["3"]
    assert (sampler["seed"], sampler["steps"], sampler["cfg"], sampler["sampler_name"]) == (
        7,
        4,
        7.5,
        "euler",
    )
    assert posted(server)["5"] == {"width": 64, "height": 48, "batch_size": 1}
    assert (posted(server)["6"]["text"], posted(server)["7"]["text"]) == (PROMPT, NEGATIVE)


def test_placeholders_in_a_longer_text_become_text(server, saved):
    workflow = saved(
        image_workflow(**{"2": saver("{{ width }}x{{height}}/{{seed}}, {{sampler}}.")})
    )

    comfyui.make(request(server, workflow, sampler=""), ignore)

    assert posted(server)["2"]["filename_prefix"] == "64x48/7, ."


def test_placeholders_are_found_in_lists_and_objects(server, saved):
    workflow = image_workflow(**{"2": saver()})
    workflow["1"]["inputs"]["more"] = {"sizes": {"__value__": ["{{width}}", "{{steps}}", 1, None]}}

    comfyui.make(request(server, saved(workflow), steps=None), ignore)

    assert posted(server)["1"]["more"] == {"sizes": {"__value__": [64, 1, None]}}


@pytest.mark.parametrize(
    "prompt",
    [
        "{{seed}} of {{negative_prompt}}",
        '", "seed": 1, "x": "',
        "\\u0022}}{{",
        "狐狸 🦊\n\t",
        "{'a'}",
        "\\1 \\g<0> $&",
    ],
)
def test_a_prompt_is_never_read_as_anything_but_text(server, saved, prompt):
    workflow = image_workflow(**{"2": saver()})
    workflow["1"]["inputs"] |= {"whole": "{{prompt}}", "part": "photo of {{prompt}}!"}

    comfyui.make(request(server, saved(workflow), prompt=prompt), ignore)

    assert posted(server)["1"]["whole"] == prompt
    assert posted(server)["1"]["part"] == f"photo of {prompt}!"


def test_inputs_the_job_has_no_value_for_are_left_out(server, saved):
    workflow = image_workflow(**{"2": saver()})
    workflow["1"]["inputs"] |= {
        "steps": "{{steps}}",
        "cfg": "{{guidance}}",
        "sampler": "{{sampler}}",
        "kept": None,
    }

    comfyui.make(request(server, saved(workflow), steps=None, guidance=None, sampler=""), ignore)

    assert set(posted(server)["1"]) == {"width", "height", "batch_size", "color", "kept"}


def test_a_job_without_a_seed_gets_one_and_says_which(server):
    generated = comfyui.make(request(server, seed=None), ignore)

    assert generated.params == {"seed": posted(server)["3"]["seed"]}


def test_no_seed_is_told_where_the_workflow_takes_none(server, saved):
    workflow = saved(image_workflow(**{"2": saver()}))

    generated = comfyui.make(request(server, workflow, seed=None), ignore)

    assert generated.params == {}


# -- The workflow file --------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", [EMPTY_IMAGE, TEXT_TO_IMAGE])
def test_workflows_of_the_docs_are_ready_to_use(server, workflow):
    comfyui.prepare(options(server, workflow))

    assert comfyui.make(request(server, workflow), ignore).data == picture(64, 48)


BROKEN = [
    ("", "is not JSON"),
    ('{"1": NaN}', "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ("[]", "holds no nodes"),
    ({}, "holds no nodes"),
    ({"nodes": [{"id": 3}], "links": []}, "is saved for the editor"),
    ({"prompt": image_workflow()}, "'prompt' is no node"),
    ({"1": {"class_type": "EmptyImage"}}, "node '1' has no inputs"),
    (image_workflow(**{"2": saver("{{promt}}")}), "unknown placeholder {{promt}}"),
    (image_workflow(), "has no node '9'"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN)
def test_a_broken_workflow_stops_the_worker_with_one_line(server, saved, content, words):
    with pytest.raises(SettingError) as caught:
        comfyui.prepare(options(server, saved(content), output_node="9"))

    assert words in str(caught.value)
    assert str(caught.value).startswith("workflow workflow.json: ") and "\n" not in str(
        caught.value
    )


ENDS = [
    (image_workflow(**{"2": saver(kind="SaveImageWebsocket")}), "", "SaveImageWebsocket"),
    (
        image_workflow(**{"2": saver(kind="SaveVideo"), "3": saver(kind="SaveVideo")}),
        "",
        "SaveVideo",
    ),
    (image_workflow(**{"2": saver(kind="VHS_VideoCombine")}), "", "VHS_VideoCombine"),
    (image_workflow(**{"2": saver(), "3": saver(kind="SaveWEBM")}), "3", "SaveWEBM"),
]


@pytest.mark.parametrize(("workflow", "output_node", "name"), ENDS)
def test_a_workflow_that_ends_in_no_picture_says_what_it_must_end_in(
    server, saved, workflow, output_node, name
):
    with pytest.raises(SettingError) as caught:
        comfyui.prepare(options(server, saved(workflow), output_node=output_node))

    assert f"{name} saves no picture; end the workflow in SaveImage" in str(caught.value)


@pytest.mark.parametrize("kind", ["SaveImage", "PreviewImage", "SomebodysSaver"])
def test_a_picture_beside_a_film_is_enough(server, saved, kind):
    workflow = image_workflow(**{"2": saver(kind="SaveVideo"), "3": saver(kind=kind)})

    comfyui.prepare(options(server, saved(workflow)))


def test_check_finds_a_workflow_that_saves_nothing(server, saved):
    with pytest.raises(PermanentError, match="saves nothing; end the workflow in SaveImage"):
        comfyui.check(options(server, saved(image_workflow())))


@pytest.mark.parametrize("content", ["", {"nodes": []}])
def test_a_workflow_broken_meanwhile_fails_the_job_and_not_the_worker(server, saved, content):
    given = options(server, saved(content))

    with pytest.raises(PermanentError, match=r"workflow\.json"):
        comfyui.check(given)
    assert failure(request(server, options=given), kind=PermanentError).code == "engine_error"


def test_a_missing_workflow_is_named(server, tmp_path):
    with pytest.raises(SettingError, match=r"workflow gone\.json: No such file"):
        comfyui.prepare(options(server, tmp_path / "gone.json"))


def test_an_edited_workflow_counts_from_the_next_job_on(server, saved):
    path = saved(image_workflow(**{"2": saver()}))
    comfyui.make(request(server, path), ignore)

    edited = image_workflow(**{"2": saver()})
    edited["1"]["inputs"]["width"] = 32
    saved("\ufeff" + json.dumps(edited))

    assert comfyui.make(request(server, path), ignore).data == picture(32, 64)


# -- Progress -----------------------------------------------------------------------------------


def test_progress_counts_nodes_and_the_steps_of_the_sampler(any_server):
    # Four nodes before the sampler, which counts as ten and is in the middle of its 4 steps, and
    # two after it.
    any_server.hold_at, heard, held = ("3", 2), [], (4 + 10 / 2) / 16

    def on_progress(done, total):
        heard.append(done / total)
        if heard[-1] == held or len(heard) > 500:
            any_server.go.set()

    comfyui.make(request(any_server), on_progress)

    assert heard == sorted(heard)
    assert heard[0] == 0 and held in heard


@pytest.mark.parametrize(
    "noise",
    [
        "not JSON", "[]", '"x"', "{}",
        '{"type": "progress", "data": null}', '{"type": "progress", "data": []}',
        '{"type": "progress", "data": {"value": 1, "max": 0}}',
        '{"type": "progress", "data": {"value": "1", "max": "2"}}',
        '{"type": "progress", "data": {"value": NaN, "max": 1, "node": "3"}}',
        '{"type": "progress", "data": {"value": 99, "max": 1, "node": "nobody"}}',
        '{"type": "executing", "data": {"node": {}}}',
        '{"type": "progress_state", "data": {"nodes": {"3": {}}}}',
        '{"type": "unheard_of", "data": {}}', "", "x" * 60_000,
    ],
)  # fmt: skip
def test_odd_messages_are_passed_over(server, noise):
    server.noise, heard = [noise, noise.encode()], []

    generated = comfyui.make(request(server), lambda done, total: heard.append(done / total))

    assert generated.data == picture(64, 48)
    assert heard == sorted(heard) and heard[-1] <= 1


def test_on_progress_is_called_while_others_are_served_first(server):
    server.occupy()
    calls = []

    def on_progress(done, total):
        calls.append(done)
        if len(calls) == 10:
            server.go.set()

    comfyui.make(request(server), on_progress)

    assert calls[:10] == [0] * 10


@pytest.mark.parametrize("path", ["/queue", "/prompt", "/view"])
def test_on_progress_is_called_while_an_answer_is_late(server, short_cancel_wait, path):
    server.hanging, calls = {path}, []

    def on_progress(done, total):
        calls.append(done)
        if len(calls) == 20:
            raise Canceled

    failure(request(server), on_progress, Canceled)

    assert len(calls) == 20


def test_without_a_websocket_the_picture_comes_all_the_same(any_server):
    any_server.has_websocket = False

    generated = comfyui.make(request(any_server), ignore)

    assert generated.data == picture(64, 48)


def test_a_websocket_that_never_connects_is_not_waited_for_long(server, monkeypatch):
    monkeypatch.setattr(comfyui, "WEBSOCKET_TIMEOUT_SECONDS", 0.2)
    server.hanging = {"/ws"}

    generated = comfyui.make(request(server), ignore)

    assert generated.data == picture(64, 48)


def test_a_websocket_that_is_sent_elsewhere_does_not_go_there(server, other_server):
    server.instead["/ws"] = (
        302,
        b"",
        {"Location": other_server.url.replace("http", "ws") + "/ws?clientId=us"},
    )

    generated = comfyui.make(request(server), ignore)

    assert generated.data == picture(64, 48)
    assert other_server.asked == []


def test_a_websocket_that_breaks_leaves_polling(server):
    server.hold_at = ("3", 2)
    thread, outcome = in_background(comfyui.make, request(server), ignore)
    wait_until(lambda: server.held.is_set() and asked(server, "GET /queue"))

    server.drop()
    server.go.set()
    thread.join(10)

    assert outcome[0].data == picture(64, 48)


@pytest.mark.parametrize(
    ("base_url", "websocket"),
    [
        ("https://example.com/comfy", "wss://example.com/comfy/ws?x"),
        ("http://[::1]:8188", "ws://[::1]:8188/ws?x"),
    ],
)
def test_websocket_goes_to_the_same_server(base_url, websocket):
    server = comfyui.connect(ComfyUI(base_url=base_url, workflow=EMPTY_IMAGE))

    assert comfyui.Listener(server, "/ws?x", ignore).url == websocket


# -- Cancel -------------------------------------------------------------------------------------


def test_cancel_takes_a_waiting_prompt_out_of_the_queue(any_server):
    any_server.occupy()

    failure(request(any_server), cancel_when(lambda: any_server.queue), Canceled)

    assert any_server.queue == []
    assert any_server.running[1] == "of somebody"
    assert any_server.interrupts == []


def test_cancel_interrupts_the_prompt_that_runs(any_server):
    any_server.hold_at = ("3", 2)

    failure(request(any_server), cancel_when(any_server.held.is_set), Canceled)

    assert (any_server.queue, any_server.running, any_server.history) == ([], None, {})
    assert len(any_server.files) == 0


def test_cancel_interrupts_by_id_so_that_nobody_else_is_hit(server):
    server.hold_at = ("3", 2)

    failure(request(server), cancel_when(server.held.is_set), Canceled)

    assert set(server.interrupts) == {asked(server, "POST /prompt")[0]["prompt_id"]}


def test_cancel_goes_up_unchanged(server):
    server.hold_at, reason = ("3", 2), Canceled("because")

    def on_progress(done, total):
        if server.held.is_set():
            raise reason

    assert failure(request(server), on_progress, Canceled) is reason


def test_cancel_while_the_prompt_is_being_posted_takes_it_back_later(any_server, short_cancel_wait):
    any_server.late, any_server.hold_at = {"/prompt"}, ("4", 0)

    failure(request(any_server), cancel_when(lambda: asked(any_server, "POST /prompt")), Canceled)
    any_server.unhang.set()

    wait_until(lambda: any_server.accepted)
    wait_until(any_server.is_idle)


@pytest.mark.parametrize("path", ["/queue", "/interrupt", "/history"])
def test_cancel_is_not_held_up_by_a_server_that_hangs(server, short_cancel_wait, path):
    server.hold_at = ("3", 2)

    def on_progress(done, total):
        if server.held.is_set():
            server.hanging = {path}
            raise Canceled

    started = time.monotonic()
    failure(request(server), on_progress, Canceled)

    assert time.monotonic() - started < 8  # it goes on trying for 10 s, in the background


def test_cancel_of_a_server_that_died_is_quick(server):
    server.hold_at = ("3", 2)

    def on_progress(done, total):
        if server.held.is_set():
            server.kill()
            raise Canceled

    started = time.monotonic()
    failure(request(server), on_progress, Canceled)

    assert time.monotonic() - started < 8  # it goes on trying for 10 s, in the background


# -- The server is unavailable ------------------------------------------------------------------


def test_no_server_is_transient(server):
    given = ComfyUI(base_url=f"http://127.0.0.1:{free_port()}", workflow=EMPTY_IMAGE)

    error = failure(request(server, options=given), kind=TransientError)

    assert error.code == "engine_unavailable"


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_server_that_dies_in_the_middle_is_noticed_soon(any_server, comes_back):
    any_server.hold_at = ("3", 2)
    thread, outcome = in_background(failure, request(any_server))
    assert any_server.held.wait(10)

    started = time.monotonic()
    any_server.restart() if comes_back else any_server.kill()
    thread.join(60)

    assert (type(outcome[0]) in (TransientError, comfyui.PromptLost), outcome[0].code) == (
        True,
        "engine_unavailable",
    )
    assert time.monotonic() - started < 30


def test_a_server_that_dies_while_the_prompt_waits_is_noticed(server):
    server.occupy()
    thread, outcome = in_background(failure, request(server))
    wait_until(lambda: server.queue)

    server.restart()
    thread.join(10)

    assert isinstance(outcome[0], comfyui.PromptLost)


@pytest.mark.parametrize("forget", ["queue", "history"])
def test_a_queue_or_history_that_was_cleared_is_noticed(server, often, forget):
    server.occupy()
    thread, outcome = in_background(failure, request(server))
    wait_until(lambda: server.queue)

    if forget == "history":
        server.instead["/history/" + server.queue[0][1]] = (200, b"{}")
        server.go.set()
    server.queue.clear()
    thread.join(10)

    assert isinstance(outcome[0], comfyui.PromptLost)


def test_a_short_absence_does_not_end_a_prompt(server):
    answers = [(502, b""), (503, b"")]
    server.instead["/queue"] = lambda: answers.pop() if answers else NO_QUEUE
    server.has_websocket = False

    generated = comfyui.make(request(server), ignore)

    assert generated.data == picture(64, 48)
    assert answers == []


def test_a_lost_answer_to_the_prompt_is_nothing_to_pay_for(server, short_cancel_wait):
    server.hanging = {"/prompt"}
    thread, outcome = in_background(failure, request(server))
    wait_until(lambda: asked(server, "POST /prompt"))

    server.drop()
    thread.join(20)

    assert isinstance(outcome[0], TransientError) and not isinstance(outcome[0], NoResponse)


def test_a_lost_answer_to_the_prompt_leaves_nothing_behind(any_server, short_cancel_wait):
    any_server.late, any_server.hold_at = {"/prompt"}, ("4", 0)
    thread, _ = in_background(failure, request(any_server))
    wait_until(lambda: asked(any_server, "POST /prompt"))

    any_server.drop()
    any_server.unhang.set()
    thread.join(10)

    wait_until(lambda: any_server.accepted)
    wait_until(any_server.is_idle)


def test_a_prompt_somebody_interrupts_may_be_made_again(any_server):
    any_server.hold_at = ("3", 2)
    thread, outcome = in_background(failure, request(any_server))
    wait_until(lambda: any_server.held.is_set() and asked(any_server, "GET /queue"))

    any_server.interrupt(None)
    thread.join(10)

    assert (type(outcome[0]), outcome[0].code) == (TransientError, "engine_unavailable")


# -- The server refuses or fails ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"sampler": "eulre"}, "KSampler (3): Value not in list: sampler_name"),
        ({"sampler": PROMPT}, "KSampler (3): Value not in list: sampler_name"),
        ({"steps": 0}, "KSampler (3): Value 0 smaller than min of 1: steps"),
        ({"steps": None}, "KSampler (3): Required input is missing: steps"),
        (
            {"guidance": PROMPT},
            "KSampler (3): Failed to convert an input value to a FLOAT value: cfg",
        ),
        ({"width": 0}, "EmptyLatentImage (5): Value 0 smaller than min of 1: width"),
        (
            {"steps": None, "seed": -1},
            "KSampler (3): Value -1 smaller than min of 0: seed"
            "; KSampler (3): Required input is missing: steps",
        ),
    ],
)
def test_a_refused_workflow_says_which_node_and_why(server, changes, shown):
    error = failure(request(server, **changes), kind=PermanentError)

    assert (error.code, error.shown) == ("engine_refused", shown)


def test_the_log_names_node_kind_and_input_of_what_was_refused(server):
    error = failure(request(server, sampler="eulre"))

    assert str(error) == "engine_refused: KSampler (3): value_not_in_list: sampler_name"


@pytest.mark.parametrize(
    ("workflow", "shown"),
    [
        (
            {"1": {"class_type": "Nope", "inputs": {}}},
            "Cannot execute because node Nope does not exist.",
        ),
        (image_workflow(), "Prompt has no outputs"),
    ],
)
def test_a_workflow_refused_as_a_whole_says_why(server, saved, workflow, shown):
    error = failure(request(server, saved(workflow)), kind=PermanentError)

    assert (error.code, error.shown) == ("engine_refused", shown)


def test_a_picture_that_was_refused_while_others_were_made_says_why(server, saved):
    broken = {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}

    error = failure(
        request(server, saved(image_workflow(**{"2": saver(), "3": broken})), output_node="3"),
        kind=PermanentError,
    )

    assert (error.code, error.shown) == (
        "engine_refused",
        "SaveImage (3): Required input is missing: filename_prefix",
    )


OOM = "Allocation on device 0 would exceed allowed memory. (out of memory)"


@pytest.mark.parametrize(
    ("kind", "message", "shown"),
    [
        ("ValueError", "no such colour", "ValueError: no such colour"),
        ("torch.OutOfMemoryError", f"{OOM}\nThis error means ...", f"OutOfMemoryError: {OOM}"),
        ("torch.cuda.OutOfMemoryError", OOM, f"OutOfMemoryError: {OOM}"),
        (
            "OSError",
            "cannot read /srv/comfy/x.pt or C:\\x\\y.pt now",
            "OSError: cannot read … or … now",
        ),
        ("OSError", "no file '/srv/my models/x.pt'", "OSError: no file …"),
        ("OSError", "http://user:secret@host/x is away", "OSError: … is away"),
        ("ValueError", f"bad text: {PROMPT}", "ValueError"),
        ("ValueError", f"bad text: {NEGATIVE.upper()}", "ValueError"),
        ("ValueError", f"bad text: {PROMPT[3:14]}...", "ValueError"),
        ("KeyError", "", "KeyError"),
        ("ValueError", "x" * 10_000, f"ValueError: {'x' * 160}"),
        ("not a name", "colour", "colour"),
    ],
)
def test_a_failed_node_is_told_without_paths_and_prompts(server, kind, message, shown):
    server.failing = {"3": (kind, message)}

    error = failure(request(server), kind=PermanentError)

    assert (error.code, error.shown) == ("engine_error", f"KSampler (3): {shown}")
    assert message not in str(error) or not message


def test_a_failed_node_is_told_by_old_servers_too(any_server):
    any_server.failing, any_server.hold_at = {"3": ("ValueError", "no such colour")}, ("3", 0)

    def on_progress(done, total):
        if asked(any_server, "GET /queue"):
            any_server.go.set()

    error = failure(request(any_server), on_progress, PermanentError)

    assert (error.code, error.shown) == ("engine_error", "KSampler (3): ValueError: no such colour")


@pytest.mark.parametrize("prompt", ["fox", "狐狸"])
def test_a_short_prompt_is_not_told_either(server, prompt):
    server.failing = {"3": ("ValueError", f"what is '{prompt}'?")}

    error = failure(request(server, prompt=prompt))

    assert error.shown == "KSampler (3): ValueError"


def test_a_failed_prompt_is_forgotten_too(server):
    server.failing = {"3": ("ValueError", "")}

    failure(request(server))

    assert server.history == {}


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (302, PermanentError, "engine_error"),
        (400, PermanentError, "engine_error"),
        (401, PermanentError, "engine_account"),
        (403, PermanentError, "engine_account"),
        (404, PermanentError, "engine_refused"),
        (413, PermanentError, "engine_refused"),
        (429, TransientError, "engine_busy"),
        (500, TransientError, "engine_unavailable"),
        (502, TransientError, "engine_unavailable"),
    ],
)
@pytest.mark.parametrize("path", ["/prompt", "/queue"])
def test_http_statuses_become_our_codes(server, short_cancel_wait, path, status, kind, code):
    server.instead[path] = (status, f"<html>{PROMPT}</html>".encode())

    error = failure(request(server), kind=kind)

    assert error.code == (code if (path, status) != ("/queue", 400) else "engine_refused")


@pytest.mark.parametrize("path", ["/prompt", "/queue", "/history"])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b'"x"', b"{}", b'{"prompt_id": "../x"}', b"[" * 9999]
)
def test_odd_answers_fail_the_job_and_nothing_else(server, path, body):
    if path == "/history":
        server.instead["/queue"], path = NO_QUEUE, "/history/us"
        server.instead["/prompt"] = (200, b'{"prompt_id": "us"}')
    server.instead[path] = (200, body)

    error = failure(request(server))

    assert error.code in ("engine_error", "engine_unavailable")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"outputs": None},
        {"outputs": []},
        {"outputs": {"9": None}},
        {"outputs": {"9": {"images": None}}},
        {"outputs": {"9": {"images": [None, "x", {}, {"filename": None}]}}},
        {
            "outputs": {"9": {"gifs": [{"filename": "x"}]}},
            "status": {"status_str": "success", "completed": True},
        },
    ],
)
def test_a_history_without_a_picture_is_a_bad_picture(server, entry):
    server.instead |= {"/prompt": (200, b'{"prompt_id": "us"}'), "/queue": NO_QUEUE}
    server.instead["/history/us"] = (200, json.dumps({"us": entry}).encode())

    error = failure(request(server), kind=PermanentError)

    assert error.code == "bad_picture"


@pytest.mark.parametrize(
    "messages", [None, {}, [], ["x"], [["execution_error", None]], [["execution_error"]], [[[], 1]]]
)
def test_an_error_that_says_nothing_is_still_an_error(server, messages):
    entry = {"us": {"outputs": {}, "status": {"status_str": "error", "messages": messages}}}
    server.instead |= {"/prompt": (200, b'{"prompt_id": "us"}'), "/queue": NO_QUEUE}
    server.instead["/history/us"] = (200, json.dumps(entry).encode())

    error = failure(request(server), kind=PermanentError)

    assert error.code == "engine_error"


@pytest.mark.parametrize("answer", [(404, b""), (200, b"")])
def test_a_picture_that_is_gone_is_a_bad_picture(server, answer):
    server.instead["/view"] = answer

    error = failure(request(server), kind=PermanentError)

    assert error.code == "bad_picture"


def test_a_password_that_is_not_set_is_the_operators_business(server, monkeypatch):
    monkeypatch.delenv("COMFYUI_PASSWORD")
    given = options(server, username="us", password_env="COMFYUI_PASSWORD")

    error = failure(request(server, options=given), kind=PermanentError)

    assert error.code == "engine_account"


def test_a_film_among_the_images_is_no_picture(server):
    film = {"filename": "fox_00001_.MP4", "subfolder": "", "type": "output"}
    entry = {"us": {"outputs": {"9": {"images": [film], "animated": [True]}}}}
    server.instead |= {"/prompt": (200, b'{"prompt_id": "us"}'), "/queue": NO_QUEUE}
    server.instead["/history/us"] = (200, json.dumps(entry).encode())

    error = failure(request(server), kind=PermanentError)

    assert (error.code, error.shown) == (
        "bad_picture",
        "end the workflow in SaveImage or PreviewImage",
    )


# -- Nodes that cost money ------------------------------------------------------------------------

KEY = "comfyui-0123456789abcdef"


@pytest.fixture
def paid(server, monkeypatch):
    """Make a request of a workflow with API nodes; `sent` counts how often it is sent."""
    monkeypatch.setenv("COMFY_KEY", KEY)
    sent = []

    def paid(**changes):
        given = options(server, api_key_env="COMFY_KEY")
        return request(server, options=given, before_send=lambda: sent.append(1), **changes)

    paid.sent = sent
    return paid


def test_the_key_of_the_account_goes_along_and_nowhere_else(server, paid, caplog):
    comfyui.make(paid(), ignore)

    (body,) = asked(server, "POST /prompt")
    assert body["extra_data"] == {"api_key_comfy_org": KEY}
    assert KEY not in json.dumps(body["prompt"]) and KEY not in caplog.text
    assert paid.sent == [1]


def test_without_a_key_nothing_is_charged(server):
    sent = []

    comfyui.make(request(server, before_send=lambda: sent.append(1)), ignore)

    assert "extra_data" not in asked(server, "POST /prompt")[0] and sent == []


def test_a_key_that_is_not_set_is_the_operators_business(server, paid, monkeypatch):
    monkeypatch.delenv("COMFY_KEY")

    assert failure(paid(), kind=PermanentError).code == "engine_account"
    with pytest.raises(PermanentError, match="engine_account: COMFY_KEY is not set"):
        comfyui.check(options(server, api_key_env="COMFY_KEY"))
    assert asked(server, "POST /prompt") == paid.sent == []


def test_what_may_have_been_charged_is_not_made_again(server, paid):
    server.occupy()
    thread, outcome = in_background(failure, paid())
    wait_until(lambda: server.queue)

    server.restart()
    thread.join(10)

    assert (type(outcome[0]), outcome[0].code) == (PermanentError, "outcome_unknown")


def test_a_lost_answer_may_have_been_charged(server, paid, short_cancel_wait):
    server.hanging = {"/prompt"}
    thread, outcome = in_background(failure, paid())
    wait_until(lambda: asked(server, "POST /prompt"))

    server.drop()
    thread.join(20)

    assert outcome[0].code == "outcome_unknown"


def test_what_never_reached_the_server_may_be_made_later(paid):
    given = paid()
    away = given.options.model_copy(update={"base_url": f"http://127.0.0.1:{free_port()}"})

    error = failure(dataclasses.replace(given, options=away), kind=TransientError)

    assert error.code == "engine_unavailable"


# -- Check --------------------------------------------------------------------------------------


def test_check_tells_version_devices_and_what_the_workflow_takes(server):
    words = comfyui.check(options(server, EMPTY_IMAGE))

    assert words == [
        "ComfyUI 0.3.64",
        "cuda:0 NVIDIA L4, 24 GiB",
        "2 nodes",
        "takes seed, width, height",
    ]


def test_check_names_the_nodes_the_server_lacks(server, saved):
    workflow = image_workflow(
        **{"2": saver(), "3": saver(kind="My/Node?"), "4": saver(kind="Other")}
    )

    with pytest.raises(PermanentError, match=r"engine_refused: no node My/Node\?, Other"):
        comfyui.check(options(server, saved(workflow)))


@pytest.mark.parametrize(
    "stats", [b"{}", b"[]", b'{"system": null, "devices": {}}', b'{"devices": [null]}']
)
def test_check_gets_over_odd_statistics(server, stats):
    server.instead["/system_stats"] = (200, stats)

    words = comfyui.check(options(server))

    assert words[0] == "ComfyUI"


def test_check_of_a_server_that_hangs_ends_in_time(server, monkeypatch):
    monkeypatch.setattr(comfyui, "CHECK_TIMEOUT_SECONDS", 0.2)
    server.hanging = {"/system_stats"}

    with pytest.raises(TransientError):
        comfyui.check(options(server))


@pytest.mark.parametrize("password", ["", "wrong"])
def test_check_tells_of_a_wrong_password(server, monkeypatch, password):
    server.credentials = f"us:{PASSWORD}"
    monkeypatch.setenv("COMFYUI_PASSWORD", password)

    with pytest.raises(PermanentError) as caught:
        comfyui.check(options(server, username="us", password_env="COMFYUI_PASSWORD"))

    assert caught.value.code == "engine_account"


# -- The documentation --------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["comfyui.md", "comfyui.zh-CN.md"])
def test_the_sections_of_the_docs_are_a_models_file(tmp_path, page):
    sections = (DOCS / page).read_text(encoding="utf-8").split("```toml\n")[1:]
    file = tmp_path / "models.toml"
    file.write_text("\n".join(section.split("```")[0] for section in sections), encoding="utf-8")

    offered = catalog.load(file)

    assert {model.engine for model in offered.values()} == {"comfyui"}


# -- Pictures that come with the prompt ---------------------------------------------------------

# Without any model, as a real ComfyUI runs it, too: what the mask covers stays.
INPAINT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "{{image1}}"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "{{mask}}"}},
    "3": {
        "class_type": "EmptyImage",
        "inputs": {"width": "{{width}}", "height": "{{height}}", "batch_size": 1, "color": 0},
    },
    "4": {
        "class_type": "ImageCompositeMasked",
        "inputs": {"destination": ["1", 0], "source": ["3", 0], "mask": ["2", 1]},
    },
    "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
}
RED_CHANNEL = {**INPAINT, "2": {"class_type": "LoadImageMask", "inputs": {"image": "{{mask}}"}}}
RED_CHANNEL["2"]["inputs"]["channel"] = "red"
SHOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "{{image1}}"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def made(asked):
    return Image.open(io.BytesIO(comfyui.make(asked, ignore).data))


def test_a_picture_is_uploaded_and_loaded_by_a_node(any_server, saved):
    image = noise((64, 48))

    result = made(request(any_server, saved(SHOW), images=(encoded(image),)))

    assert not ImageChops.difference(result, image).getbbox()
    name, folder, kind, _ = any_server.uploads[0]
    assert (folder, kind) == ("image-generator", "temp")
    assert posted(any_server)["1"]["image"] == f"image-generator/{name} [temp]"


@pytest.mark.parametrize("workflow", [INPAINT, RED_CHANNEL])
def test_what_the_mask_covers_stays_whichever_way_a_node_reads_it(server, saved, workflow):
    image = noise()
    asked = request(
        server, saved(workflow), images=(encoded(image),), mask=hole(), width=96, height=96
    )

    result = made(asked)

    assert result.crop((24, 24, 72, 72)).getcolors() == [(48 * 48, (255, 255, 255))]
    result.paste(image.crop((24, 24, 72, 72)), (24, 24))
    assert not ImageChops.difference(result, image).getbbox()


def test_pictures_are_written_over_at_the_end(server, saved):
    made(request(server, saved(INPAINT), images=(plain("red"),), mask=hole(), width=96, height=96))

    wait_until(lambda: len(server.uploads) == 4)
    left = [data for (_, _, kind), data in server.files.items() if kind == "temp"]
    assert [Image.open(io.BytesIO(data)).size for data in left] == [(1, 1), (1, 1)]


def test_pictures_are_written_over_after_a_cancel(server, saved):
    server.hold_at = ("1", 0)

    with pytest.raises(Canceled):
        comfyui.make(
            request(server, saved(SHOW), images=(plain("red"),)), cancel_when(server.held.is_set)
        )

    wait_until(lambda: len(server.uploads) == 2)
    assert server.is_idle()


def test_two_jobs_have_files_of_their_own(server, saved):
    for colour in ("red", "blue"):
        made(request(server, saved(SHOW), images=(plain(colour),)))

    wait_until(lambda: len(server.uploads) == 4)
    assert len({name for name, *_ in server.uploads}) == 2


def test_a_server_that_takes_no_upload_is_an_error(server, saved):
    server.instead["/upload/image"] = (413, b"too large")

    error = failure(request(server, saved(SHOW), images=(plain("red"),)))

    assert error.code == "engine_refused" and not asked(server, "POST /prompt")


def test_requests_with_pictures_may_have_workflows_of_their_own(server, saved, tmp_path):
    paths = {}
    for name, workflow in (("image", SHOW), ("mask", INPAINT)):
        paths[f"{name}_workflow"] = tmp_path / f"{name}.json"
        paths[f"{name}_workflow"].write_text(json.dumps(workflow))
    given = {"options": options(server, **paths), "width": 96, "height": 96}

    plain_one = made(request(server, **given))
    shown = made(request(server, **given, images=(plain("red"),)))
    painted = made(request(server, **given, images=(plain("red"),), mask=hole()))

    assert [each.getpixel((2, 2)) for each in (plain_one, shown, painted)] == [
        (255, 255, 255),
        (255, 0, 0),
        (255, 0, 0),
    ]
    assert painted.getpixel((48, 48)) == (255, 255, 255)


def test_without_a_picture_its_nodes_go_and_what_needs_them(server, saved):
    workflow = {
        **json.loads(TEXT_TO_IMAGE.read_text()),
        "20": {"class_type": "LoadImage", "inputs": {"image": "{{image2}}"}},
        "21": {
            "class_type": "ImageScale",
            "inputs": {"image": ["20", 0], "width": 8, "height": 8},
        },
    }
    workflow["6"]["inputs"]["image2"] = ["21", 0]

    comfyui.make(request(server, saved(workflow)), ignore)

    nodes = posted(server)
    assert "20" not in nodes and "21" not in nodes
    assert nodes["6"] == {"text": PROMPT, "clip": ["4", 1]}


def test_a_workflow_without_the_picture_never_runs_for_one(server):
    error = failure(request(server, images=(plain("red"),)))

    assert error.code == "engine_error" and "{{image1}}" in str(error)
    assert not asked(server, "POST /prompt")


@pytest.mark.parametrize(
    ("offer", "problem"),
    [
        ({"max": 2}, "{{image2}}"),
        ({"strength": {"min": 0, "max": 1, "default": 0.5}}, "{{strength}}"),
        ({"mask": True}, "{{mask}}"),
    ],
)
def test_what_no_workflow_uses_stops_the_worker(server, saved, offer, problem):
    table = {"name": "x", "label": "X", "engine": "comfyui", "images": offer}
    table |= {side: {"min": 8, "max": 64, "default": 64} for side in ("width", "height")}
    model = catalog.Model(**table, options={"workflow": str(saved(SHOW))})

    with pytest.raises(SettingError, match=problem):
        engines.prepare(model)


def test_check_looks_at_every_workflow(server, saved, tmp_path):
    path = tmp_path / "image.json"
    path.write_text(json.dumps({**SHOW, "5": {"class_type": "NotThere", "inputs": {}}}))

    with pytest.raises(PermanentError, match="no node NotThere"):
        comfyui.check(options(server, image_workflow=path))


def test_sizes_with_a_picture_are_snapped(server, saved):
    result = made(
        request(server, saved(INPAINT), images=(plain("red"),), mask=hole(), width=99, height=93)
    )

    assert posted(server)["3"]["width"] == 96 and result.size == (96, 96)
