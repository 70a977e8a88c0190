"""The engine for OpenAI's Images API, against a local server that speaks it."""

import base64
import io
import logging
import re
import socket
import time

import pytest
from PIL import Image, ImageChops
from pydantic import ValidationError

import config
from engines import (
    EngineError,
    ImageRequest,
    PermanentError,
    TransientError,
    addresses,
    catalog,
    downloads,
    no_progress,
    openai_images,
)
from engines.options import OpenAIImages
from tests.engine_calls import Canceled, everything_of
from tests.fake_openai import ERRORS, PNG, SIGNATURE, FakeOpenAI
from tests.inputs import encoded, hole, noise, plain
from tests.servers import ROOT, free_port, wait_until
from tests.test_remote import says, serving

KEY = "sk-proj-0123456789abcdefghijkl"
PROMPT = "sentinel prompt 狐狸"
# Nobody can know if these were made.
BREAKS = ["hang", "hang up", "hang up midway", "hang up between chunks", "drip"]
GATEWAYS = ["request timeout", "gateway timeout", "cloudflare 520", "cloudflare 524"]
ODD = ["empty data", "empty entry", "numbers", "list", "html", "nothing"]
# What a gateway says of a server behind it, which may have made the picture.
DOUBTFUL = ["gateway", "gateway in json", "localai error", "unavailable", "page"]
BROKEN = ["broken base64", "data url without base64"]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setattr(downloads, "RETRY_DELAYS_SECONDS", (0, 0))


def started_server():
    server = FakeOpenAI()
    yield server
    server.close()


fake = pytest.fixture(started_server, name="fake")
elsewhere = pytest.fixture(started_server, name="elsewhere")


@pytest.fixture
def named(monkeypatch):
    """Make every name of example.com mean this machine."""
    look_up = socket.getaddrinfo

    def answer(host, *more, **options):
        return look_up("127.0.0.1" if str(host).endswith("example.com") else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def options(fake, **changes) -> OpenAIImages:
    given = {
        "base_url": f"{fake.url}/v1",
        "model": "gpt-image-1",
        "api_key_env": "FAKE_KEY",
        "timeout_seconds": 20,
    }
    return OpenAIImages(**{**given, **changes})


def request(fake, changes: dict | None = None, **values) -> ImageRequest:
    given = {"prompt": PROMPT, "width": 1024, "height": 1536, "steps": None, "seed": None}
    return ImageRequest(**{**given, **values}, options=options(fake, **(changes or {})))


def draw(fake, on_progress=no_progress, values: dict | None = None, **changes):
    return openai_images.make(request(fake, changes, **(values or {})), on_progress)


def failure(fake, mode: str = "", on_progress=no_progress, **changes) -> EngineError:
    fake.mode = mode or fake.mode
    with pytest.raises(EngineError) as caught:
        draw(fake, on_progress, **changes)
    return caught.value


def times_asked(fake, path: str = "/v1/images/generations") -> int:
    # On a busy machine the server may still be about to hear of a request that was given up.
    wait_until(lambda: fake.asked(path))
    return len(fake.asked(path))


def sent(fake, values: dict | None = None, **changes) -> dict:
    draw(fake, values=values, **changes)
    return fake.asked()[0].body


# -- A picture ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode",
    [
        "b64",
        "b64 in lines",
        "b64 with prefix",
        "data url",
        "url",
        "siliconflow",
        "images only",
        "localai",
        "vllm omni",
    ],
)
def test_picture_comes_back_as_it_is(fake, mode):
    fake.mode = mode

    generated = draw(fake)

    assert generated.data == PNG
    assert len(fake.asked()) == 1


def test_the_body_says_what_the_request_says(fake):
    body = sent(fake, {"quality": "high", "style": "vivid"})

    assert body == {
        "model": "gpt-image-1",
        "prompt": PROMPT,
        "n": 1,
        "size": "1024x1536",
        "quality": "high",
        "style": "vivid",
    }


def test_parameters_of_diffusion_have_the_usual_names(fake):
    body = sent(
        fake,
        {"steps": 20, "guidance": 0.0, "seed": 0, "negative_prompt": "rain", "sampler": "euler"},
    )

    assert (
        body.items()
        >= {"num_inference_steps": 20, "guidance_scale": 0.0, "seed": 0, "sampler": "euler"}.items()
    )
    assert body["negative_prompt"] == "rain"


def test_models_file_names_the_fields(fake):
    body = sent(fake, {"steps": 8}, fields={"size": "image_size", "n": "batch_size", "steps": ""})

    assert body == {
        "model": "gpt-image-1",
        "prompt": PROMPT,
        "batch_size": 1,
        "image_size": "1024x1536",
    }


def test_extra_is_sent_as_it_is(fake):
    body = sent(fake, extra={"output_format": "webp", "size": "auto", "deep": {"a": [1]}})

    assert body["output_format"] == "webp"
    assert body["size"] == "auto"
    assert body["deep"] == {"a": [1]}


@pytest.mark.parametrize("wanted", ["", "b64_json", "url"])
def test_response_format_is_sent_only_if_asked_for(fake, wanted):
    body = sent(fake, response_format=wanted)

    assert body.get("response_format", "") == wanted


@pytest.mark.parametrize(("variable", "header"), [("FAKE_KEY", f"Bearer {KEY}"), ("", None)])
def test_key_is_sent_if_there_is_one(fake, variable, header):
    draw(fake, api_key_env=variable)

    assert fake.seen[0].headers.get("Authorization") == header


def test_passwords_of_netrc_are_not_sent(fake, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fake.mode = "url"

    draw(fake, api_key_env="")

    assert [request.headers.get("Authorization") for request in fake.seen] == [None, None]


@pytest.mark.parametrize(
    ("mode", "seed"), [("siliconflow", 9999999999), ("images only", 7), ("b64", None)]
)
def test_seed_is_the_one_the_server_says(fake, mode, seed):
    fake.mode = mode

    assert draw(fake).params.get("seed") == seed


@pytest.mark.parametrize("seed", ["7", -1, True, 1.5, 2**53, 2**63, [7]])
def test_odd_seed_is_left_out(fake, seed):
    fake.seed = seed

    assert draw(fake).params == {}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("a red fox", {"revised_prompt": "a red fox"}),
        (" ", {}),
        (["x"], {}),
        ("x" * 9000, {"revised_prompt": "x" * 4000}),
    ],
)
def test_revised_prompt_is_kept(fake, said, kept):
    fake.revised_prompt = said

    assert draw(fake).params == kept


def test_progress_grows_and_never_is_whole(monkeypatch):
    now, told = iter([0, 0, 30, 90, 3600, 10**9]), []
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    tick = openai_images.estimated_progress(lambda done, total: told.append((done, total)))

    for _ in range(5):
        tick()

    assert told == [(0, 100), (50, 100), (75, 100), (99, 100), (99, 100)]


# -- Other ways to the server -------------------------------------------------------------------


def test_server_may_have_another_path_and_a_query(fake):
    changes = {"path": "/images", "query": {"api-version": "2025-04-01-preview", "x": "a b&c"}}

    draw(fake, **changes)
    openai_images.check(options(fake, **changes))

    query = "api-version=2025-04-01-preview&x=a+b%26c"
    assert [(one.path, one.query) for one in fake.seen] == [
        ("/v1/images", query),
        ("/v1/models", query),
    ]


@pytest.mark.parametrize(
    ("changes", "header", "value"),
    [
        ({"api_key_header": "api-key"}, "Api-Key", KEY),
        ({"api_key_header": "X-Key", "api_key_prefix": "Key "}, "X-Key", f"Key {KEY}"),
        ({"api_key_prefix": "Token "}, "Authorization", f"Token {KEY}"),
        ({"api_key_prefix": ""}, "Authorization", KEY),
        (
            {"headers": {"HTTP-Referer": "https://example.com"}},
            "Http-Referer",
            "https://example.com",
        ),
        ({"headers": {"X-Title": "Pictures"}}, "X-Title", "Pictures"),
    ],
)
def test_key_and_headers_are_sent_as_the_server_wants_them(fake, changes, header, value):
    fake.mode = "url"

    draw(fake, **changes)
    openai_images.check(options(fake, **changes))

    assert [one.headers.get(header) for one in fake.seen] == [value] * 3
    if "api_key_header" in changes:
        assert [one.headers.get("Authorization") for one in fake.seen] == [None] * 3


def test_key_in_a_header_of_its_own_never_goes_to_another_host(fake, elsewhere, named):
    linked(fake, "cdn.example.com", elsewhere.http.port)

    draw(
        fake,
        api_key_header="api-key",
        headers={"X-Title": "Pictures"},
        result_hosts=["*"],
        allow_private_results=True,
    )

    assert elsewhere.seen[0].headers.keys().isdisjoint({"Api-Key", "X-Title", "Authorization"})


def test_size_may_be_sent_as_two_numbers(fake):
    body = sent(fake, fields={"size": "", "width": "width", "height": "h"})

    assert (body["width"], body["h"]) == (1024, 1536)
    assert "size" not in body


# -- Refusals and errors ------------------------------------------------------------------------


@pytest.mark.parametrize("paid", [True, False])
@pytest.mark.parametrize(
    ("mode", "code"),
    [
        *[
            (mode, "content_refused")
            for mode in ("policy", "moderation", "user error", "azure filter", "azure inner")
        ],
        *[(mode, "content_refused") for mode in ("volcengine", "dashscope", "legal", "filtered")],
        *[
            (mode, "engine_account")
            for mode in ("no key", "payment", "not verified", "no quota", "no credit")
        ],
        ("hard limit", "engine_account"),
        *[
            (mode, "engine_refused")
            for mode in ("bad value", "no model", "vllm error", "siliconflow error")
        ],
        ("fastapi error", "engine_refused"),
        *[(mode, "engine_error") for mode in (*ODD, "redirect")],
        *[(mode, "bad_picture") for mode in BROKEN],
    ],
)
def test_what_will_not_go_better_is_final(fake, mode, code, paid):
    error = failure(fake, mode, paid=paid)

    assert isinstance(error, PermanentError)
    assert error.code == code
    assert len(fake.seen) == 1


@pytest.mark.parametrize("paid", [True, False])
@pytest.mark.parametrize(
    ("mode", "code", "seconds"),
    [
        ("busy", "engine_busy", 7),
        ("busy till", "engine_busy", pytest.approx(3600, abs=60)),
        ("busy for ever", "engine_busy", None),
        ("server error", "engine_unavailable", None),
        ("overloaded", "engine_unavailable", 9),
    ],
)
def test_what_may_go_better_is_transient(fake, mode, code, seconds, paid):
    error = failure(fake, mode, paid=paid)

    assert isinstance(error, TransientError)
    assert (error.code, error.retry_after) == (code, seconds)
    assert len(fake.asked()) == 1


@pytest.mark.parametrize(
    ("mode", "text", "shown"),
    [
        ("bad value", "engine_refused: 400 invalid_value invalid_request_error size", True),
        ("vllm error", "engine_refused: 400 BadRequestError", True),
        ("siliconflow error", "engine_refused: 400 20012", True),
        ("fastapi error", "engine_refused: 422", True),
        ("azure inner", "content_refused: 400 ResponsibleAIPolicyViolation", False),
        ("plain message", "engine_refused: 400", True),
        ("no key", "engine_account: 401 invalid_api_key invalid_request_error", False),
    ],
)
def test_error_holds_the_servers_short_names(fake, mode, text, shown):
    error = failure(fake, mode)

    assert str(error) == text
    assert error.shown == (text.partition(" ")[2][4:] if shown else "")


def test_missing_key_is_reported_before_anything_is_sent(fake, monkeypatch):
    monkeypatch.delenv("FAKE_KEY")

    error = failure(fake)

    assert error.code == "engine_account"
    assert fake.seen == []


# -- What may be charged ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*BREAKS, *GATEWAYS, *DOUBTFUL])
def test_paid_request_without_an_answer_is_never_retried(fake, mode):
    error = failure(fake, mode, timeout_seconds=0.3)

    assert isinstance(error, PermanentError)
    assert error.code == "outcome_unknown"
    assert times_asked(fake) == 1


@pytest.mark.parametrize("mode", [*BREAKS, *GATEWAYS, *DOUBTFUL])
def test_free_request_without_an_answer_may_be_retried(fake, mode):
    error = failure(fake, mode, timeout_seconds=0.3, paid=False)

    assert isinstance(error, TransientError)
    assert error.code == "engine_unavailable"
    assert times_asked(fake) == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}", "http://nobody.invalid", "https://127.0.0.1:{port}"]
)
def test_request_that_found_no_server_is_transient(fake, url):
    error = failure(fake, base_url=url.format(port=free_port()))

    assert isinstance(error, TransientError)
    assert error.code == "engine_unavailable"


def test_paid_request_is_noted_before_it_is_sent(fake):
    seen_then = []

    draw(fake, values={"before_send": lambda: seen_then.append(len(fake.seen))})

    assert seen_then == [0]
    assert len(fake.seen) == 1


def test_free_request_is_not_noted(fake):
    noted = []

    draw(fake, values={"before_send": lambda: noted.append(1)}, paid=False)

    assert noted == []


def test_request_that_cannot_be_noted_is_not_sent(fake):
    def refuse():
        raise KeyError

    with pytest.raises(KeyError):
        draw(fake, values={"before_send": refuse})

    assert fake.seen == []


@pytest.mark.parametrize(
    ("given", "is_paid"),
    [
        ({}, False),
        ({"api_key_env": "A"}, True),
        ({"api_key_env": "A", "paid": False}, False),
        ({"paid": True}, True),
    ],
)
def test_pictures_cost_money_where_a_key_is_asked_for(given, is_paid):
    assert OpenAIImages(model="m", **given).is_paid == is_paid


# -- Cancel -------------------------------------------------------------------------------------


def cancel_when(is_time):
    def on_progress(done, total):
        if is_time():
            raise Canceled

    return on_progress


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_cancel_ends_a_request_that_hangs(fake, mode):
    fake.mode = mode
    started = time.monotonic()

    with pytest.raises(Canceled):
        draw(fake, cancel_when(lambda: fake.seen))

    assert time.monotonic() - started < 60
    assert len(fake.asked()) == 1


def test_cancel_leaves_the_server(fake):
    fake.mode = "hang"

    with pytest.raises(Canceled):
        draw(fake, cancel_when(fake.hangs.is_set))

    assert fake.was_left.wait(5)


def test_cancel_ends_the_fetching_of_a_picture(fake):
    fake.mode, fake.picture_mode = "url", "hang"

    with pytest.raises(Canceled):
        draw(fake, cancel_when(fake.hangs.is_set))

    assert fake.was_left.wait(5)


# -- Pictures that are only linked to -----------------------------------------------------------


def linked(fake, host: str, port: int, scheme: str = "http") -> None:
    """Let answers link to a picture elsewhere."""
    fake.mode, fake.link = "url", f"{scheme}://{host}:{port}/pictures/2.png?sig={SIGNATURE}"


def test_link_to_the_server_itself_is_followed_with_the_key(fake):
    fake.mode = "url"

    draw(fake)

    assert fake.asked("/pictures/1.png")[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("pattern", ["cdn.example.com", "*.example.com", "*"])
def test_key_never_goes_to_another_host(fake, elsewhere, named, pattern):
    linked(fake, "cdn.example.com", elsewhere.http.port)

    generated = draw(fake, result_hosts=[pattern], allow_private_results=True)

    assert generated.data == PNG
    assert "Authorization" not in elsewhere.seen[0].headers


@pytest.mark.parametrize(
    "pattern",
    [
        "cdn.example.org",
        "*.cdn.example.com",
        "xample.com",
        "*.ample.com",
        "example.com",
        "cdn.example.com.x",
    ],
)
def test_link_to_a_host_that_is_not_allowed_is_not_followed(fake, elsewhere, named, pattern):
    linked(fake, "cdn.example.com", elsewhere.http.port)

    error = failure(fake, result_hosts=[pattern], allow_private_results=True)

    assert str(error) == "engine_error: cdn.example.com is not in result_hosts"
    assert elsewhere.seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1", "2130706433"])
def test_another_port_of_the_server_is_another_host(fake, elsewhere, host):
    linked(fake, host, elsewhere.http.port)

    error = failure(fake)

    assert error.code == "engine_error"
    assert elsewhere.seen == []


def test_other_hosts_need_tls(fake, elsewhere, named):
    linked(fake, "cdn.example.com", elsewhere.http.port)

    error = failure(fake, result_hosts=["*"])

    assert str(error) == "engine_error: cdn.example.com asked without TLS"
    assert elsewhere.seen == []


def test_name_that_means_a_private_address_is_not_spoken_to(fake, named):
    with socket.create_server(("127.0.0.1", 0)) as private:
        linked(fake, "cdn.example.com", private.getsockname()[1], "https")

        error = failure(fake, result_hosts=["cdn.example.com"])

        assert str(error) == "engine_error: an address that is not allowed"
        assert private.accept()[0].recv(100) == b""


@pytest.mark.parametrize(
    "host",
    [
        *["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"],
        *["[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]"],
    ],
)
def test_private_address_is_not_spoken_to_however_it_is_written(fake, host):
    with socket.create_server(("127.0.0.1", 0)) as private:
        linked(fake, host, private.getsockname()[1], "https")

        error = failure(fake, result_hosts=["*"])

        assert str(error) == "engine_error: an address that is not allowed"
        assert private.accept()[0].recv(100) == b""


def test_redirect_to_a_private_address_is_not_followed(fake, elsewhere):
    with socket.create_server(("127.0.0.1", 0)) as private:
        port = private.getsockname()[1]
        fake.mode, fake.redirects = "url", [f"https://2130706433:{port}/1.png"]

        error = failure(fake, result_hosts=["*"])

        assert str(error) == "engine_error: an address that is not allowed"
        assert private.accept()[0].recv(100) == b""


def test_picture_whose_head_drips_is_given_up(fake, monkeypatch):
    monkeypatch.setattr(downloads, "DOWNLOAD_TIMEOUT_SECONDS", 0.2)

    with serving(says(b"HTTP/1.1 200 OK\r\nX: ", end=b"x")) as url:
        fake.mode, fake.link = "url", f"{url}/1.png"
        error = failure(fake, result_hosts=["*"], allow_private_results=True)

    assert error.code == "outcome_unknown"


@pytest.mark.parametrize(
    "address",
    [
        *[
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ],
        *[
            "::1",
            "fe80::1%eth0",
            "fc00::1",
            "::ffff:10.0.0.1",
            "ff02::1",
            "::",
            "198.18.0.1",
            "255.255.255.255",
        ],
    ],
)
def test_address_is_private(address):
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_address_is_public(address):
    assert addresses.is_public(address)


@pytest.mark.parametrize(
    "link",
    [
        *[
            "ftp://{own}/1.png",
            "file:///etc/passwd",
            "javascript:x",
            "http://",
            "http://[",
            "x",
        ],
        *[
            "http://{own}@127.0.0.1:{other}/1.png",
            "http://user:password@{own}/1.png",
            "//127.0.0.1:{other}/1.png",
        ],
        "http://127.0.0.1:{other}\\@{own}/1.png",
    ],
)
def test_odd_link_is_not_followed(fake, elsewhere, link):
    fake.mode, fake.link = "url", link.format(own=fake.url[7:], other=elsewhere.http.port)

    error = failure(fake)

    assert error.code == "engine_error"
    assert len(fake.seen) == 1
    assert elsewhere.seen == []


def test_redirects_are_followed_by_the_same_rules(fake, elsewhere, named):
    linked(fake, "cdn.example.com", elsewhere.http.port)
    elsewhere.redirects = ["/pictures/3.png", f"{fake.url}/pictures/4.png"]

    generated = draw(fake, result_hosts=["cdn.example.com"], allow_private_results=True)

    assert generated.data == PNG
    assert [request.headers.get("Authorization") for request in elsewhere.seen] == [None, None]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/x", "https://localhost:{port}/x", "ftp://127.0.0.1/", ""]
)
def test_redirect_to_a_host_that_is_not_allowed_is_not_followed(fake, elsewhere, target):
    fake.mode, fake.redirects = "url", [target.format(port=elsewhere.http.port)] * 5

    error = failure(fake)

    assert error.code == "engine_error"
    assert elsewhere.seen == []


def test_redirects_end(fake):
    fake.mode, fake.redirects = "url", ["/pictures/9.png"] * 4

    error = failure(fake)

    assert str(error) == "engine_error: too many redirects"
    assert len(fake.seen) == 5


def test_picture_that_is_not_there_yet_is_asked_for_again(fake):
    fake.mode, fake.failures = "url", 2

    generated = draw(fake)

    assert generated.data == PNG
    assert len(fake.asked()) == 1


@pytest.mark.parametrize("how", ["hang", "hang up", "hang up midway", "drip", "gone"])
@pytest.mark.parametrize(
    ("paid", "kind", "code"),
    [(True, PermanentError, "outcome_unknown"), (False, TransientError, None)],
)
def test_picture_that_cannot_be_fetched(fake, monkeypatch, how, paid, kind, code):
    monkeypatch.setattr(downloads, "DOWNLOAD_TIMEOUT_SECONDS", 0.2)
    fake.mode, fake.picture_mode, fake.failures = "url", how, 9 if how == "gone" else 0

    error = failure(fake, paid=paid)

    assert isinstance(error, kind)
    assert error.code == (code or "engine_unavailable")
    assert times_asked(fake) == 1
    assert wait_until(lambda: len(fake.asked("/pictures/1.png")) == 3)


@pytest.mark.parametrize("mode", ["b64", "url"])
def test_picture_beyond_all_measure_is_refused(fake, monkeypatch, mode):
    monkeypatch.setattr(config.settings, "MAX_RESULT_PIXELS", 1000)
    fake.mode, fake.result = mode, b"x" * 300_000

    error = failure(fake)

    assert str(error) == "engine_error: an answer of more than 6000 bytes"
    assert len(fake.asked("/pictures/1.png")) == (mode == "url")


# -- What errors and logs say -------------------------------------------------------------------


def assert_tells_nothing(text: str) -> None:
    assert text
    for secret in (KEY, PROMPT, SIGNATURE, "http://", "https://", "127.0.0.1"):
        assert secret not in text


@pytest.mark.parametrize("paid", [True, False])
@pytest.mark.parametrize("mode", [*ERRORS, *BREAKS, *ODD, *BROKEN, "redirect", "siliconflow error"])
def test_errors_and_logs_hold_no_key_prompt_or_address(fake, caplog, mode, paid):
    caplog.set_level(logging.DEBUG)

    error = failure(fake, mode, paid=paid, timeout_seconds=0.2)

    assert_tells_nothing(everything_of(error) + caplog.text)


@pytest.mark.parametrize(
    "how", ["hang", "hang up", "hang up midway", "gone", "redirected", "refused", "odd"]
)
def test_errors_of_fetching_hold_no_key_prompt_or_address(fake, caplog, monkeypatch, how):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(downloads, "DOWNLOAD_TIMEOUT_SECONDS", 0.2)
    fake.mode, fake.picture_mode, fake.failures = "url", how, 9 if how == "gone" else 0
    fake.redirects = ["/pictures/9.png"] * 4 if how == "redirected" else []
    fake.link = {"refused": "https://other.example.com/1.png", "odd": f"http://[{SIGNATURE}"}.get(
        how, fake.link
    )

    assert_tells_nothing(everything_of(failure(fake)) + caplog.text)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/v1", "http://nobody.invalid/v1"])
def test_errors_of_a_server_that_is_away_hold_no_key_prompt_or_address(fake, caplog, url):
    caplog.set_level(logging.DEBUG)

    error = failure(fake, base_url=url.format(port=free_port()))

    assert_tells_nothing(everything_of(error) + caplog.text)


def test_key_that_cannot_be_sent_is_not_quoted(fake, monkeypatch):
    monkeypatch.setenv("FAKE_KEY", f"{KEY}\n{KEY}’")

    error = failure(fake)

    assert error.code == "engine_account"
    assert_tells_nothing(everything_of(error))


# -- Check --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("list", "2 models"),
        ("one", "1 model"),
        ("others", "1 model, this one is not in the list"),
        *[(kind, "no model list") for kind in ("empty", "404", "405")],
    ],
)
def test_check_says_what_the_server_has(fake, models, words):
    fake.models = models

    assert ", ".join(openai_images.check(options(fake))) == words
    assert fake.seen[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("models", "kind", "code"),
    [
        ("401", PermanentError, "engine_account"),
        ("403", PermanentError, "engine_account"),
        ("400", PermanentError, "engine_refused"),
        ("html", PermanentError, "engine_error"),
        ("429", TransientError, "engine_busy"),
        ("503", TransientError, "engine_unavailable"),
    ],
)
def test_check_says_what_is_wrong(fake, models, kind, code):
    fake.models = models

    with pytest.raises(kind) as caught:
        openai_images.check(options(fake))

    assert caught.value.code == code
    assert_tells_nothing(everything_of(caught.value))


def test_check_makes_no_picture(fake):
    openai_images.check(options(fake))

    assert [request.path for request in fake.seen] == ["/v1/models"]


# -- Options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"fields": {"colour": "x"}}, "has no colour; there are n, size"),
        ({"fields": {"size": "prompt"}}, "must leave model and prompt alone"),
        ({"fields": {"size": "a b"}}, "String should match"),
        ({"extra": {"n": 4}}, "must leave n alone"),
        ({"extra": {"prompt": "x", "stream": True}}, "must leave prompt, stream alone"),
        ({"result_hosts": ["https://a.example.com"]}, "String should match"),
        ({"result_hosts": ["*example.com"]}, "String should match"),
        ({"path": "images"}, "String should match"),
        ({"path": "/images?key=x"}, "String should match"),
        ({"base_url": "https://example.com/v1?a=b"}, "belongs into the option query"),
        ({"query": {"api_key": "x"}}, "must leave api_key alone; a key is sent by api_key_env"),
        ({"query": {"access_token": "x"}}, "must leave access_token alone"),
        ({"headers": {"Authorization": "Bearer x"}}, "must leave Authorization alone"),
        ({"headers": {"X-Api-Key": "x"}}, "must leave X-Api-Key alone"),
        ({"headers": {"Host": "x"}}, "must leave Host alone"),
        ({"headers": {"X-A": "x\r\nX-B: y"}}, "String should match"),
        ({"headers": {"X A": "x"}}, "String should match"),
        ({"api_key_header": "a:b"}, "String should match"),
        ({"errors": {"1113": "arrears"}}, "engine_account"),
        ({"refused_markers": ["("]}, "must be a regular expression"),
        ({"base_url": "https://user:password@example.com/v1"}, "without user name and password"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(wrong, complaint):
    with pytest.raises(ValidationError, match=complaint.replace("[", "\\[")):
        OpenAIImages(model="m", **wrong)


@pytest.mark.parametrize("page", ["openai_images.md", "openai_images.zh-CN.md"])
def test_models_of_the_documentation_can_be_declared(page, tmp_path):
    text = (ROOT / "docs/engines" / page).read_text(encoding="utf-8")
    (tmp_path / "models.toml").write_text(
        "\n".join(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)), "utf-8"
    )

    offered = catalog.load(tmp_path / "models.toml")

    assert {name: (model.options.is_paid, model.takes_seed) for name, model in offered.items()} == {
        "gpt-image-1": (True, False),
        "gpt-image-2": (True, False),
        "qwen-edit": (True, True),
        "home": (False, True),
        "kolors": (True, True),
        "azure": (True, False),
        "openrouter": (True, False),
        "imagen": (True, False),
        "cogview": (True, False),
        "seedream": (True, False),
        "minimax": (True, True),
    }


# -- Pictures that come with the prompt ---------------------------------------------------------

EDITS = "/v1/images/edits"
GENERATIONS = "/v1/images/generations"


def is_same(first: Image.Image, second: Image.Image) -> bool:
    difference = ImageChops.difference(first, second.convert(first.mode))
    return difference.getbbox(alpha_only=False) is None


def from_url(url: str) -> Image.Image:
    head, _, encoded = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_pictures_are_files_of_a_form(fake):
    images = (encoded(noise()), encoded(noise((64, 48)), "webp"), plain("red", extension="jpg"))

    made = openai_images.make(request(fake, images=images, quality="high"), no_progress)

    [seen] = fake.asked(EDITS)
    assert made.data == PNG and not fake.asked(GENERATIONS)
    assert [(name, file.format) for name, file in seen.files] == [
        ("image[]", "PNG"),
        ("image[]", "WEBP"),
        ("image[]", "JPEG"),
    ]
    assert is_same(seen.files[0][1], noise()) and is_same(seen.files[1][1], noise((64, 48)))
    assert seen.body == {
        "model": "gpt-image-1",
        "prompt": PROMPT,
        "n": "1",
        "size": "1024x1536",
        "quality": "high",
    }
    assert seen.headers["Authorization"] == f"Bearer {KEY}"


def test_the_mask_says_it_in_both_ways(fake):
    openai_images.make(request(fake, images=(encoded(noise()),), mask=hole()), no_progress)

    mask = dict(fake.asked(EDITS)[0].files)["mask"]
    assert mask.getpixel((48, 48)) == (255, 255, 255, 0)
    assert mask.getpixel((2, 2)) == (0, 0, 0, 255)


def test_a_model_of_old_takes_one_picture_by_another_name(fake):
    changes = {"fields": {"image": "image"}, "response_format": "b64_json", "extra": {"user": 7}}

    openai_images.make(request(fake, changes, images=(plain("red"),)), no_progress)

    [seen] = fake.asked(EDITS)
    assert [name for name, _ in seen.files] == ["image"]
    assert (seen.body["response_format"], seen.body["user"]) == ("b64_json", "7")
    assert options(fake, **changes).max_images == 1


@pytest.mark.parametrize(
    ("form", "names"),
    [("fields", ["image", "image2", "image3"]), ("list", ["image"])],
)
def test_pictures_may_be_urls_in_json(fake, form, names):
    changes = {"images_as": form, "images_fields": {"size": ""}}
    images = (encoded(noise()), plain("red"), plain("blue"))

    openai_images.make(request(fake, changes, images=images, mask=hole()), no_progress)

    [seen] = fake.asked(GENERATIONS)
    body = seen.body
    assert [name for name in body if name.startswith("image")] == names
    urls = body["image"] if form == "list" else [body[name] for name in names]
    assert len(urls) == 3 and is_same(from_url(urls[0]), noise())
    assert from_url(body["mask"]).getpixel((48, 48)) == (255, 255, 255, 0)
    assert "size" not in body and body["prompt"] == PROMPT


def test_without_pictures_nothing_of_them_is_sent(fake):
    changes = {"images_as": "list", "images_fields": {"size": ""}, "images_path": "/other"}

    openai_images.make(request(fake, changes), no_progress)

    assert fake.asked(GENERATIONS)[0].body["size"] == "1024x1536"


def test_pictures_may_have_a_path_of_their_own(fake):
    changes = {"images_path": "/images/variations", "images_fields": {"strength": "strength"}}

    openai_images.make(request(fake, changes, images=(plain("red"),), strength=0.5), no_progress)

    assert fake.asked("/v1/images/variations")[0].body["strength"] == "0.5"


def test_a_mask_that_the_server_refuses_is_an_error(fake):
    wrong = request(fake, images=(plain("red", (64, 64)),), mask=hole())

    with pytest.raises(PermanentError) as failure:
        openai_images.make(wrong, no_progress)

    assert failure.value.code == "engine_refused"


@pytest.mark.parametrize(
    ("changes", "offered"),
    [
        ({}, (16, True, False)),
        ({"images_as": "fields"}, (16, True, False)),
        ({"images_fields": {"mask": "", "strength": "strength"}}, (16, False, True)),
        ({"images_fields": {"image": ""}}, (0, True, False)),
    ],
)
def test_what_is_offered_follows_the_fields(fake, changes, offered):
    found = options(fake, **changes)

    assert (found.max_images, found.takes_mask, found.takes_strength) == offered


@pytest.mark.parametrize("fields", [{"picture": "x"}, {"image": "prompt"}, {"image": "a b"}])
def test_wrong_fields_for_pictures_stop_the_start(fake, fields):
    with pytest.raises(ValidationError, match="images_fields"):
        options(fake, images_fields=fields)


def test_a_break_after_pictures_were_sent_is_never_repeated(fake):
    fake.mode = "hang up"
    asked = request(fake, images=(plain("red"),))

    with pytest.raises(PermanentError) as failure:
        openai_images.make(asked, no_progress)

    assert failure.value.code == "outcome_unknown" and len(fake.asked(EDITS)) == 1


# -- Parameters of today's models ---------------------------------------------------------------


def test_todays_parameters_are_sent_under_their_names(fake):
    said = {"background": "transparent", "output_format": "webp", "moderation": "low"}

    openai_images.make(request(fake, **said, output_compression=70), no_progress)

    body = fake.asked(GENERATIONS)[0].body
    assert {name: body[name] for name in said} == said and body["output_compression"] == 70


@pytest.mark.parametrize("output_format", ["", "png"])
def test_a_lossless_format_is_sent_without_compression(fake, output_format):
    asked = request(fake, output_format=output_format, output_compression=70)

    openai_images.make(asked, no_progress)

    assert "output_compression" not in fake.asked(GENERATIONS)[0].body


def test_any_ratio_is_the_size_auto(fake):
    openai_images.make(request(fake, aspect_ratio="auto", resolution="2K"), no_progress)

    body = fake.asked(GENERATIONS)[0].body
    assert body["size"] == "auto" and "aspect_ratio" not in body and "resolution" not in body


def test_a_server_may_have_fields_for_ratio_and_resolution(fake):
    changes = {"fields": {"size": "", "aspect_ratio": "ratio", "resolution": "image_size"}}

    openai_images.make(request(fake, changes, aspect_ratio="16:9", resolution="2K"), no_progress)

    body = fake.asked(GENERATIONS)[0].body
    assert (body["ratio"], body["image_size"]) == ("16:9", "2K") and "size" not in body


def test_moderation_is_not_sent_with_pictures(fake):
    openai_images.make(request(fake, moderation="low", images=(plain("red"),)), no_progress)

    assert "moderation" not in fake.asked(EDITS)[0].body
