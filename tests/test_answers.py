"""Answers and errors in the shapes of many providers, each from a local server."""

import base64
import gzip
import json

import pytest

from engines import EngineError, PermanentError, TransientError, provider_errors, remote
from tests import test_openai_images
from tests.fake_openai import PNG
from tests.pictures import picture
from tests.test_openai_images import draw, failure, times_asked

fake = test_openai_images.fake
key = test_openai_images.key
JPEG = picture("JPEG", (8, 8))
TEXT = base64.b64encode(PNG).decode()
OTHER = base64.b64encode(JPEG).decode()
LINK = "/pictures/1.png"


def reply(server, body, status: int = 200, content_type: str = "application/json") -> None:
    """Let the server answer with this body; what is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    server.mode, server.reply = "reply", (status, data, content_type)


def events(*values) -> bytes:
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def error_of(server, body, status: int = 200, **changes) -> EngineError:
    reply(server, body, status)
    return failure(server, **changes)


# -- Where the picture is -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"url": LINK}]},
        {"data": [{"url": f".{LINK}"}]},
        {"data": [{"url": f" {LINK}\n"}]},
        {"data": [{"url": "../pictures/1.png"}]},
        {"data": [{"url": "pictures/1.png"}]},
        {"data": [{"url": [LINK, "/pictures/2.png"]}]},
        {"data": [LINK]},
        {"data": [TEXT]},
        {"data": TEXT},
        {"data": {"url": LINK}},
        {"data": {"b64_json": TEXT}},
        {"data": [{}, {"b64_json": TEXT}]},
        {"data": [{"b64_json": "", "url": None}, {"b64_json": None, "url": LINK}]},
        {"data": [None, [], {"b64_json": TEXT}]},
        {"data": [], "images": [{"url": LINK}]},
        {"data": None, "image": TEXT},
        {"images": [TEXT]},
        {"images": [f"data:image/png;base64,{TEXT}"]},
        {"output": [LINK]},
        {"output": {"results": [{"url": LINK}]}},
        {"output": {"choices": [{"message": {"content": [{"image": LINK}]}}]}},
        {"results": [{"image_url": {"url": LINK}}]},
        {"result": {"image": TEXT}},
        {"id": "1", "data": {"image_urls": [LINK]}, "base_resp": {"status_code": 0}},
        {"data": {"image_base64": [TEXT]}, "base_resp": {"status_code": 0, "status_msg": "ok"}},
        {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "x", "data": TEXT}}]}}]},
        [{"b64_json": TEXT}],
        {"status": "succeeded", "id": "8", "urls": {"get": "/x"}, "output": [LINK]},
        {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": TEXT}]},
        {"Response": {"ResultImage": TEXT, "RequestId": "1"}},
        {"code": 10000, "data": {"binary_data_base64": [TEXT], "image_urls": None}},
        {"status": "Ready", "polling_url": "/x", "result": {"sample": LINK, "prompt": "/y"}},
        {"data": {"task_status": "succeed", "task_result": {"images": [{"url": LINK}]}}},
        {"data": [{"imageURL": LINK, "thumbnailURL": "/x"}], "input": {"image": OTHER}},
        {"output": [{"type": "image_generation_call", "result": TEXT}]},
        {"documentation_url": "/x", "data": {"0": {"download_url": LINK}}},
        {"logo_url": "/x", "data": [[{"file": {"href": LINK}}]]},
        {"data": ["pictures/1.png"]},
        LINK,
    ],
)
def test_picture_is_found(fake, body):
    reply(fake, body)

    assert draw(fake).data == PNG
    assert len(fake.asked()) == 1


@pytest.mark.parametrize(
    "text", [TEXT, f"{TEXT[:60]}\n{TEXT[60:]}\n", f"data:;base64,{TEXT}", LINK]
)
def test_whole_answer_may_be_base64_or_a_link(fake, text):
    reply(fake, text.encode(), content_type="text/plain")

    assert draw(fake).data == PNG


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "AVIF"])
def test_unusual_formats_are_known_by_their_first_bytes(fake, kind):
    data = picture(kind, (8, 8))

    for body in (data, {"result": [base64.b64encode(data).decode()]}):
        reply(fake, body)
        assert draw(fake).data == data


@pytest.mark.parametrize("name", ["prompt", "revised_prompt", "text", "description"])
def test_prompt_that_is_repeated_chooses_no_link(fake, name):
    assert error_of(fake, {"data": [{name: LINK}]}).code == "engine_error"


def test_relative_link_is_fetched_from_the_server_with_the_key(fake):
    reply(fake, {"data": [{"url": "pictures/1.png"}]})

    draw(fake)

    # Relative to base_url, which ends in /v1.
    [request] = fake.asked("/v1/pictures/1.png")
    assert request.headers["Authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    "text",
    [
        TEXT.rstrip("="),
        TEXT.replace("+", "-").replace("/", "_"),
        TEXT.replace("+", "-").replace("/", "_").rstrip("="),
        "\r\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76)) + "\n",
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/png;charset=utf-8;base64,{TEXT.rstrip('=')}",
        f"data:image/png;base64,{TEXT.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
        f" {TEXT}",
    ],
)
def test_base64_is_understood_however_it_is_written(fake, text):
    reply(fake, {"data": [{"b64_json": text}]})

    assert draw(fake).data == PNG
    assert remote.decode_base64(text) == PNG


@pytest.mark.parametrize("text", ["", "*", "iVBORw0KGgo*", "狐狸", "data:,", None, 7, ["x"], "A"])
def test_what_is_no_base64_is_no_picture(text):
    with pytest.raises(PermanentError) as caught:
        remote.decode_base64(text)

    assert caught.value.code == "bad_picture"


@pytest.mark.parametrize("data", [PNG, JPEG, picture("WEBP", (8, 8)), picture("GIF", (8, 8))])
@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "text/plain"])
def test_picture_may_be_the_whole_answer(fake, data, content_type):
    reply(fake, data, content_type=content_type)

    assert draw(fake).data == data


@pytest.mark.parametrize(
    "body",
    [
        events({"data": [{"b64_json": TEXT}]}, "[DONE]"),
        events(
            {"type": "image_generation.partial_image", "b64_json": OTHER},
            {"type": "image_generation.partial_image", "b64_json": OTHER},
            {"type": "image_generation.completed", "b64_json": TEXT},
        ),
        events(
            {"type": "image_generation.partial_succeeded", "image_index": 0, "url": LINK},
            {"type": "image_generation.completed", "usage": {"generated_images": 1}},
            "[DONE]",
        ),
        events({"b64_json": OTHER, "partial_image_index": 0}, {"b64_json": TEXT}),
        b"event: x\r\nid: 1\r\ndata: " + json.dumps({"b64_json": TEXT}).encode() + b"\r\n\r\n",
        b': hello\n\ndata: {"data": [\ndata: {"b64_json": "%s"}]}\n\n' % TEXT.encode(),
        json.dumps({"data": [{"b64_json": TEXT}]}).encode().join([b"data:", b"\ndata: [DONE]"]),
        b'{"progress": 50}\n{"image": "%s"}\n' % TEXT.encode(),
        events({"type": "response.completed", "response": {"output": [{"result": TEXT}]}}),
    ],
)
def test_stream_of_events_gives_its_last_picture(fake, body):
    reply(fake, body, content_type="text/event-stream")

    assert draw(fake).data == PNG


def test_stream_of_previews_alone_is_no_picture(fake):
    body = events({"type": "image_generation.partial_image", "b64_json": TEXT})

    assert error_of(fake, body).code == "engine_error"


def test_stream_may_end_in_an_error(fake):
    body = events(
        {"type": "image_generation.partial_image", "b64_json": TEXT},
        {"type": "error", "error": {"code": "moderation_blocked", "message": "no"}},
    )

    assert error_of(fake, body).code == "content_refused"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xef\xbb\xbf" + json.dumps({"data": [TEXT]}).encode(), "application/json"),
        (json.dumps({"data": [TEXT]}).encode("utf-16"), "application/json"),
        (
            json.dumps({"data": [TEXT], "m": "图片"}, ensure_ascii=False).encode("gbk"),
            "application/json; charset=gbk",
        ),
        (
            json.dumps({"data": [TEXT], "m": "图"}, ensure_ascii=False).encode("gbk"),
            "text/html; charset=nonsense",
        ),
    ],
)
def test_json_may_be_encoded_otherwise(fake, body, content_type):
    reply(fake, body, content_type=content_type)

    assert draw(fake).data == PNG


def test_revised_prompt_is_read_as_its_charset_says(fake):
    body = {"data": [{"b64_json": TEXT, "revised_prompt": "一只狐狸"}]}
    reply(fake, json.dumps(body, ensure_ascii=False).encode("gbk"), content_type="x; charset=GBK")

    assert draw(fake).params == {"revised_prompt": "一只狐狸"}


@pytest.mark.parametrize("body", [b"\xff\xfe{", b"{", gzip.compress(b"{}"), b"data: x\n\n"])
def test_what_is_no_json_is_said_to_be_none(fake, body):
    assert str(error_of(fake, body)) == "engine_error: 200 without JSON"


# -- A task instead of a picture ----------------------------------------------------------------

FAILED = {"output": {"task_id": "0385dc79", "task_status": "FAILED", "message": "x"}}


@pytest.mark.parametrize("body", [FAILED, {"id": "1", "status": "completed", "data": []}])
def test_task_that_ended_is_none_to_wait_for(fake, body):
    assert error_of(fake, body).code == "engine_error"


TASKS = [
    {"output": {"task_id": "0385dc79", "task_status": "PENDING"}, "request_id": "7574"},
    {"task_id": "0385dc79", "base_resp": {"status_code": 0, "status_msg": "success"}},
    {"id": "0385dc79", "status": "starting", "urls": {"get": 1}},
    {"id": "0385dc79", "task_status": "PROCESSING", "model": "cogview-4"},
    {"id": "0385dc79", "polling_url": 1},
    {"data": {"task_id": "0385dc79", "status": "queued"}},
    {"data": [{"task_id": "0385dc79"}]},
    {"request_id": "0385dc79", "status": "IN_QUEUE"},
    {"request_id": "0385dc79", "response_url": LINK, "status_url": LINK},
    {"id": "0385dc79", "status": "processing", "output_url": LINK},
    {"Response": {"JobId": "0385dc79"}},
    {"prediction": {"uuid": "0385dc79", "state": "submitted"}},
]


@pytest.mark.parametrize("body", TASKS)
def test_paid_task_is_reported_with_its_id(fake, body):
    error = error_of(fake, body)

    assert (type(error), error.code) == (PermanentError, "outcome_unknown")
    assert error.shown == "task 0385dc79"
    assert times_asked(fake) == 1


@pytest.mark.parametrize("body", TASKS)
def test_free_task_is_an_error_of_its_own(fake, body):
    error = error_of(fake, body, paid=False)

    assert str(error) == "engine_task: 200 without a picture, but with the task 0385dc79"
    assert error.shown == "task 0385dc79"


# -- Errors in providers' words -----------------------------------------------------------------


@pytest.mark.parametrize("paid", [True, False])
@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        # Zhipu
        (429, {"error": {"code": "1113", "message": "x"}}, "engine_account"),
        (429, {"error": {"code": 1113, "message": "x"}}, "engine_account"),
        (400, {"error": {"code": "1301"}, "contentFilter": [{"level": 1}]}, "content_refused"),
        (400, {"error": {"code": "1211"}}, "engine_refused"),
        (429, {"error": {"code": "1302"}}, "engine_busy"),
        # Google
        (400, [{"error": {"code": 400, "message": "x", "status": "INVALID"}}], "engine_refused"),
        (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], "engine_busy"),
        (
            400,
            [{"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}}],
            "engine_account",
        ),
        # Volcengine
        (
            200,
            {"data": [{"error": {"code": "OutputImageSensitiveContentDetected", "message": "x"}}]},
            "content_refused",
        ),
        (200, {"data": [{"error": {"code": "AccountOverdueError"}}]}, "engine_account"),
        # MiniMax
        (200, {"base_resp": {"status_code": 1008, "status_msg": "x"}}, "engine_account"),
        (200, {"base_resp": {"status_code": "1026"}, "data": None}, "content_refused"),
        (200, {"base_resp": {"status_code": 1002, "status_msg": "x"}}, "engine_busy"),
        (200, {"base_resp": {"status_code": 2013, "status_msg": "x"}}, "engine_refused"),
        # DashScope
        (400, {"code": "DataInspectionFailed", "message": "x"}, "content_refused"),
        (400, {"code": "Arrearage", "message": "x", "request_id": "1"}, "engine_account"),
        (403, {"code": "AccessDenied.Unpurchased", "message": "x"}, "engine_account"),
        (429, {"code": "Throttling.RateQuota", "message": "x"}, "engine_busy"),
        (
            200,
            {"output": {"task_status": "FAILED", "code": "DataInspectionFailed", "message": "x"}},
            "content_refused",
        ),
        # OpenRouter
        (
            403,
            {"error": {"code": 403, "message": "x", "metadata": {"reasons": ["violence"]}}},
            "content_refused",
        ),
        (200, {"error": {"code": 402, "message": "x"}}, "engine_account"),
        (200, {"error": {"code": 429, "message": "x"}}, "engine_busy"),
        # Others
        (403, {"error": {"code": "insufficient_user_quota"}}, "engine_account"),
        (500, {"code": "BILLING_FAILED", "reason": "x"}, "engine_account"),
        (400, {"code": "BILLING_BALANCE_NOT_ENOUGH"}, "engine_account"),
        (400, {"code": "ILLEGAL_PROMPT"}, "content_refused"),
        (422, {"error": {"type": "content_filtered_error"}}, "content_refused"),
        (400, {"error": "insufficient_quota"}, "engine_account"),
        (400, {"errors": [{"code": "content_policy_violation"}]}, "content_refused"),
        (400, {"detail": {"error": {"code": "rate_limit_exceeded"}}}, "engine_busy"),
        (400, {"detail": {"code": "rate_limit_exceeded"}}, "engine_busy"),
        (429, {"code": 1101, "message": "x"}, "engine_account"),
        (500, {"code": 50511, "message": "x", "data": None}, "content_refused"),
        (200, {"Response": {"Error": {"Code": "Denied.TextIllegalDetected"}}}, "content_refused"),
        (200, {"Response": {"Error": {"Code": "RequestLimitExceeded"}}}, "engine_busy"),
        (200, {"promptFeedback": {"blockReason": "SAFETY"}}, "content_refused"),
        (200, {"candidates": [{"finishReason": "IMAGE_RECITATION"}]}, "content_refused"),
        (200, {"predictions": [{"raiFilteredReason": "code 58061214"}]}, "content_refused"),
        (200, {"id": "1", "status": "Request Moderated", "result": None}, "content_refused"),
        (200, {"images": [], "error": "blocked by our content filters"}, "content_refused"),
        (400, {"error": "not enough api tokens", "code": "unexpected"}, "engine_account"),
        (400, {"error": '{"code": "content_policy_violation"}'}, "content_refused"),
        (422, {"detail": [{"type": "content_policy_violation"}]}, "content_refused"),
        (
            400,
            {"error": {"message": "litellm.ContentPolicyViolationError: x", "code": "400"}},
            "content_refused",
        ),
    ],
)
def test_error_is_understood(fake, status, body, code, paid):
    error = error_of(fake, body, status, paid=paid)

    assert error.code == code
    assert isinstance(error, TransientError) == (code == "engine_busy")
    assert times_asked(fake) == 1


def test_models_file_says_what_a_code_means(fake):
    table = {"E77": "engine_account", "1301": "engine_refused", "422": "content_refused"}

    assert error_of(fake, {"code": "e77"}, 500, errors=table).code == "engine_account"
    assert error_of(fake, {"error": {"code": 1301}}, 400, errors=table).code == "engine_refused"
    assert error_of(fake, {"detail": "x"}, 422, errors=table).code == "content_refused"


def test_error_shows_only_codes(fake):
    error = error_of(fake, {"error": "a red fox", "message": "a red fox", "code": "a red fox"}, 400)

    assert (str(error), error.shown) == ("engine_refused: 400", "")


# -- What may have been charged -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"error": {"code": "server_error"}}),
        (503, {"error": {"code": "server_is_overloaded"}}),
        (429, {"error": {"code": "rate_limit_exceeded"}}),
        (200, {"base_resp": {"status_code": 1002}}),
    ],
)
def test_late_error_of_a_paid_model_is_doubtful(fake, monkeypatch, status, body):
    assert isinstance(error_of(fake, body, status), TransientError)

    monkeypatch.setattr(provider_errors, "QUICK_SECONDS", -1)

    assert error_of(fake, body, status).code == "outcome_unknown"
    assert isinstance(error_of(fake, body, status, paid=False), TransientError)


@pytest.mark.parametrize(
    ("status", "body", "header"),
    [
        (500, {"error": {"message": "litellm.InternalServerError: x", "type": "x_error"}}, ""),
        (500, {"error": {"message": "x", "type": "None", "param": "None", "code": "500"}}, ""),
        (500, {"error": {"message": "x", "type": None, "code": "502"}}, ""),
        (500, {"error": {"code": "do_request_failed"}}, ""),
        (500, {"error": {"code": "server_error"}}, "X-LiteLLM-Version"),
        (503, {"error": {"code": "service_unavailable"}}, ""),
        (500, {"error": "x"}, ""),
        (500, {"error": "no, a busy street"}, ""),
        (500, {}, ""),
        (200, {"error": {"code": 502, "message": "x"}}, ""),
        (200, {"error": {"code": 500, "message": "x"}}, ""),
        (200, {"base_resp": {"status_code": 1001, "status_msg": "timeout"}}, ""),
    ],
)
def test_error_that_a_gateway_made_up_is_doubtful(fake, status, body, header):
    fake.reply_headers = {header: "1"} if header else {}

    assert error_of(fake, body, status).code == "outcome_unknown"
    assert isinstance(error_of(fake, body, status, paid=False), TransientError)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524, 529, 408])
def test_error_of_a_gateway_is_doubtful_unless_the_models_file_says_otherwise(fake, status):
    table = {str(status): "engine_unavailable"}

    assert error_of(fake, b"<h1>Bad gateway</h1>", status).code == "outcome_unknown"
    assert isinstance(error_of(fake, b"", status, errors=table), TransientError)
    assert isinstance(error_of(fake, b"", status, paid=False), TransientError)


def test_code_that_the_models_file_calls_free_is_repeated(fake, monkeypatch):
    monkeypatch.setattr(provider_errors, "QUICK_SECONDS", -1)

    error = error_of(fake, {"code": "cold_start"}, 502, errors={"cold_start": "engine_busy"})

    assert (type(error), error.code) == (TransientError, "engine_busy")


def test_code_may_be_declared_doubtful(fake):
    error = error_of(fake, {"code": "E1"}, 429, paid=False, errors={"E1": "outcome_unknown"})

    assert (type(error), error.code) == (PermanentError, "outcome_unknown")


def test_answer_whose_head_never_ends_is_given_up(monkeypatch):
    calls = []
    monkeypatch.setattr(remote.time, "monotonic", lambda: 100.0 * len(calls))

    with pytest.raises(EngineError, match="no whole answer in time"):
        remote.run_with_progress(
            remote.threading.Event().wait, lambda: calls.append(1), 0.01, timeout_seconds=50
        )
