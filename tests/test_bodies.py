"""Bodies: how long they may be, what many fields cost, and in which encoding text must come."""

import io
import json
import unicodedata

import pytest

from accounts.names import identity_key
from images import blocklist
from images.schemas import GenerateInput, GenerateTestInput
from tests.conftest import Person, form, usernames
from tests.pictures import picture
from validation import InvalidInput, parse

REGISTER = "/api/auth/register"
LOGIN = "/api/auth/login"
GENERATE = "/api/v1/images/generate"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=X"
MARKS = "\u0301\u0316"  # in the wrong order: the worst there is for normalization


@pytest.fixture
def visitor():
    """Somebody whose requests are refused before a database is asked."""
    return Person()


def send(person, path: str, body: bytes, content_type: str, chunked: bool = False):
    """Post a body, with its Content-Length or in chunks."""
    if not chunked:
        return person.post(path, data=body, content_type=content_type)
    # As gunicorn hands a chunked body over.
    environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    return person.post(
        path,
        input_stream=io.BytesIO(body),
        content_type=content_type,
        environ_overrides=environ,
    )


def parts(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a multipart form of these names and values."""
    text = b""
    for name, value in fields:
        text += b'--X\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n'
        text += value + b"\r\n"
    return text + b"--X--\r\n"


# -- Length -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        (REGISTER, "application/json"),
        (REGISTER, URLENCODED),
        (LOGIN, "application/json"),
        (GENERATE, "application/json"),
        (f"{GENERATE}-test", "application/json"),
        ("/api/v1/images/delete", "application/json"),
    ],
)
def test_a_body_of_more_than_64_kb_is_refused(alice, path, content_type, chunked):
    body = b'{"username":"alice"}' + b" " * 65_536

    response = send(alice, path, body, content_type, chunked)

    assert (response.status_code, response.json["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_64_kb_is_read(alice, chunked):
    body = json.dumps({"username": "alice", "password": "secret1"}).encode().ljust(65_536)

    assert send(alice, LOGIN, body, "application/json", chunked).status_code == 200


def test_a_large_body_is_not_read_for_who_may_not_call(client):
    body = io.BytesIO(b"x" * 100_000)

    response = client.post(GENERATE, data=body, content_type="application/json")

    assert response.status_code == 401


def test_an_avatar_may_be_larger(client):
    large = picture("PNG") + b"\0" * 200_000

    response = client.post(REGISTER, data=form("alice", avatar=(io.BytesIO(large), "a.png")))

    assert response.status_code == 200


def test_two_prompts_of_2000_characters_fit_however_they_are_written(alice):
    prompts = {"prompt": "🦊" * 2000, "negative_prompt": "狐" * 2000}

    response = alice.post(GENERATE, data=json.dumps(prompts), content_type="application/json")

    assert response.status_code in (202, 400)
    assert "prompt" not in response.json.get("fields", {})


def test_a_form_of_very_many_parts_is_refused(client):
    body = parts(*[(b"a", b"1")] * 1000)

    response = client.post(REGISTER, data=body, content_type=MULTIPART)

    assert response.status_code == 413


@pytest.mark.parametrize("fields", [{}, {"params": {}}])
def test_very_many_fields_are_answered_by_a_few_sentences(alice, fields):
    unknown = {f"field{number}": 1 for number in range(3000)}

    response = alice.post(GENERATE, json={**unknown, **fields})

    assert response.status_code == 400
    assert len(response.json["fields"]) <= 20


# -- Length comes before normalization ----------------------------------------------------------


@pytest.fixture
def normalized(monkeypatch):
    """The lengths of what was normalized since."""
    lengths = []
    normalize = unicodedata.normalize

    def normalize_and_note(form, text):
        lengths.append(len(text))
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", normalize_and_note)
    return lengths


LONG = "a" + MARKS * 5000


@pytest.mark.parametrize("field", ["username", "email", "password"])
def test_a_long_text_is_refused_before_it_is_normalized(client, normalized, field):
    value = f"{LONG}@example.com" if field == "email" else LONG

    response = client.post(REGISTER, json=form("alice", **{field: value}))

    assert set(response.json["fields"]) == {field}
    assert max(normalized, default=0) < 300


def test_a_long_name_logs_nobody_in_and_is_not_normalized(client, normalized):
    response = client.post(LOGIN, json={"username": LONG, "password": "secret1"})

    assert response.status_code == 400
    assert normalized == []


def test_a_long_prompt_is_refused_before_it_is_compared_with_words(
    alice, normalized, settings, tmp_path
):
    words = tmp_path / "words.txt"
    words.write_text("fox", encoding="utf-8")
    settings.PROMPT_BLOCKLIST = str(words)
    blocklist.words()
    normalized.clear()

    response = alice.post(GENERATE, json={"prompt": LONG})

    assert set(response.json["fields"]) == {"prompt"}
    assert normalized == []


def test_a_long_search_is_refused_before_anything_is_done_with_it(alice, normalized):
    normalized.clear()

    response = alice.get("/api/v1/images/history", query_string={"q": "x" * 201})

    assert response.json["fields"] == {"q": "q 最多 200 个字符"}
    assert normalized == []


def test_a_key_is_made_of_no_more_than_its_column_holds(normalized):
    identity_key(LONG)

    assert max(normalized) < 1000


# -- Encoding -----------------------------------------------------------------------------------

GBK = "张三".encode("gbk")


def test_a_multipart_form_in_gbk_is_refused_by_the_name_of_its_field(visitor):
    body = parts((b"username", GBK * 2), (b"email", b"zs@example.com"), (b"password", b"secret1"))

    response = visitor.post(REGISTER, data=body, content_type=MULTIPART)

    assert response.status_code == 400
    assert response.json["code"] == "invalid_input"
    assert response.json["fields"] == {"username": "用户名不是 UTF-8 编码"}


@pytest.mark.parametrize("charset", [b"gbk", b"ascii"])
def test_a_part_that_names_another_encoding_is_refused(visitor, charset):
    body = parts((b"username", GBK * 2)).replace(
        b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=" + charset + b"\r\n\r\n"
    )

    response = visitor.post(REGISTER, data=body, content_type=MULTIPART)

    assert response.json["fields"] == {"username": "用户名不是 UTF-8 编码"}


@pytest.mark.parametrize("name", [b'"a"; filename="\xd5\xc5.png"', b"\xd5\xc5"])
def test_names_in_gbk_within_a_form_are_refused(visitor, name):
    head = b"--X\r\nContent-Disposition: form-data; name=" + name

    response = visitor.post(REGISTER, data=head + b"\r\n\r\n1\r\n--X--\r\n", content_type=MULTIPART)

    assert response.json["fields"] == {"body": "请求体不是 UTF-8 编码"}


def test_a_multipart_form_without_its_boundary_is_named(visitor):
    response = visitor.post(REGISTER, data=parts(), content_type="multipart/form-data")

    assert response.status_code == 400
    assert set(response.json["fields"]) == {"body"}
    assert "boundary" in response.json["message"]


@pytest.mark.parametrize("kind", ["text/plain", "text/json", "application/xml", "image/png", ""])
def test_a_body_that_is_no_form_is_said_to_be_none(client, kind):
    response = client.post(REGISTER, data=b'{"username": "alice"}', content_type=kind)

    assert (response.status_code, set(response.json["fields"])) == (400, {"body"})


@pytest.mark.parametrize("file", [{}, {"0": {}}, [], "[object File]", {"path": "a.png"}])
def test_a_form_that_a_library_made_json_is_told_how_to_send_its_file(client, file):
    response = client.post(REGISTER, json=form("alice", avatar=file))

    assert (response.status_code, set(response.json["fields"])) == (400, {"avatar"})
    assert "multipart/form-data" in response.json["message"]


def test_an_empty_registration_names_each_field(client):
    response = client.post(REGISTER)

    assert set(response.json["fields"]) == {"username", "email", "password"}


@pytest.mark.parametrize("name", [GBK * 2, b"%D5%C5%C8%FD", b"a+%d5%c5"])
def test_a_urlencoded_form_in_gbk_is_refused_by_the_name_of_its_field(visitor, name):
    body = b"password=secret1&username=" + name + b"&email=zs%40example.com"

    response = visitor.post(REGISTER, data=body, content_type=URLENCODED)

    assert response.status_code == 400
    assert response.json["fields"] == {"username": "用户名不是 UTF-8 编码"}


@pytest.mark.parametrize("query", ["q=%D5%C5", "page=1&q=a%FF", "%D5%C5=1"])
def test_a_query_in_gbk_is_refused(alice, query):
    response = alice.get(f"/api/v1/images/history?{query}")

    assert response.status_code == 400
    assert "不是 UTF-8 编码" in response.json["message"]
    assert set(response.json["fields"]) <= {"q", "query"}


def test_json_in_gbk_is_refused_by_the_name_of_its_field(alice):
    body = json.dumps({"prompt": "狐狸", "negative_prompt": "x"}, ensure_ascii=False).encode("gbk")

    response = alice.post(GENERATE, data=body, content_type="application/json")

    assert response.json["fields"] == {"prompt": "提示词不是 UTF-8 编码"}


@pytest.mark.parametrize(
    "body", [b'"\xd5\xc5"', b'{"\xd5\xc5": 1}', b'{"params": ["\xd5"]}', b"\xff"]
)
def test_other_json_that_is_not_utf8_is_refused(alice, body):
    response = alice.post(GENERATE, data=body, content_type="application/json")

    assert response.json["fields"] == {"body": "请求体不是 UTF-8 编码"}


def test_utf8_in_every_kind_of_body_is_stored_as_it_is(client):
    multipart = parts(
        (b"username", "张三丰".encode()), (b"email", b"a@x.de"), (b"password", b"secret1")
    )
    urlencoded = form("李四光")
    query = "?q=%E5%BC%A0"

    first = client.post(REGISTER, data=multipart, content_type=MULTIPART)
    second = client.post(REGISTER, data={**urlencoded, "email": "b@x.de"}, content_type=URLENCODED)

    assert (first.status_code, second.status_code) == (200, 200)
    names = usernames()
    assert names == ["张三丰", "李四光"]
    assert client.get(f"/api/v1/images/history{query}").status_code == 401


def test_a_replacement_character_that_a_user_typed_stays_in_a_prompt(alice):
    response = alice.post(GENERATE, json={"prompt": "a \ufffd sign"})

    assert response.json["data"]["records"][0]["prompt"] == "a \ufffd sign"


# -- Prompts that show nothing ------------------------------------------------------------------

NOTHING = [
    "\u200b",
    "\ufeff",
    "\u3164",
    "\u2800",
    "\u00ad",
    "\ufe0f",
    "\u034f",
    "\u061c",
    "\u115f",
    "\u1160",
    "\u17b4",
    "\u17b5",
    "\u180b",
    "\u180e",
    "\u200d",
    "\u200e",
    "\u202a",
    "\u2060",
    "\u2064",
    "\u206a",
    "\uffa0",
    "\ufff9",
    "\U00013442",
    "\U00016fe4",
    "\U0001bca0",
    "\U0001d173",
    "\U000e0001",
    "\U000e0041",
    "\U000e0100",
    "\u3000",
    "\u00a0",
    "\u1680",
    "\u2028",
    "\n\t",
]


@pytest.mark.parametrize("character", NOTHING)
@pytest.mark.parametrize("schema", [GenerateInput, GenerateTestInput])
def test_a_prompt_that_shows_nothing_is_empty(schema, character):
    with pytest.raises(InvalidInput) as refused:
        parse(schema, {"prompt": f" {character * 3} \u200b{character}"})

    assert refused.value.fields == {"prompt": ("string_too_short", {"min_length": 1})}


def test_every_character_of_the_category_cf_is_invisible(alice):
    characters = map(chr, range(0x110000))
    invisible = "".join(one for one in characters if unicodedata.category(one) == "Cf")

    response = alice.post(GENERATE, json={"prompt": invisible})

    assert response.json["fields"] == {"prompt": "提示词至少 1 个字符"}


@pytest.mark.parametrize(
    "prompt", ["👨\u200d👩\u200d👧", "❤\ufe0f", "می\u200cخواهم", "क\u200dष", "."]
)
def test_invisible_characters_stay_in_a_prompt_that_shows_something(prompt):
    assert parse(GenerateInput, {"prompt": f" {prompt}\n"}).prompt == prompt


def test_a_negative_prompt_that_shows_nothing_is_none(alice):
    params = {"negative_prompt": "\u200b\u3164"}

    response = alice.post(f"{GENERATE}-test", json={"prompt": "a fox", "params": params})

    assert response.status_code == 200
    assert alice.history()["records"][0]["params"].get("negative_prompt", "") == ""
