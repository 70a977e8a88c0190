"""Search in prompts: what is found, the same on every database, and what a search may cost."""

import subprocess
import sys
import unicodedata

import pytest

import db
import heavy
import pool as pools
from images import history, search
from tests.conftest import Person
from tests.servers import ROOT, clean_environment
from tests.test_effort import add_generations, analyze, session_status
from tests.test_history import prompts

HISTORY = "/api/v1/images/history"


def draw(person: Person, prompt: str) -> None:
    """Add a finished generation, by a submit, which folds its prompt."""
    params = {"width": 64, "height": 64, "steps": 1}
    assert person.generate(prompt, **params).status_code == 200


def look(person: Person, **query):
    return person.get(HISTORY, query_string=query)


def found(person: Person, text: str) -> list[str]:
    return prompts(look(person, q=text).json["data"])


NFC, NFD = (unicodedata.normalize(form, "Crème brûlée, Ångström") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("A Red Fox", "rED fOX"),
        ("ЛИСА в снегу", "лиса"),
        ("лиса в снегу", "ЛИСА"),
        ("Η ΑΛΕΠΟΎ ΣΤΟ ΧΙΌΝΙ ΤΗΣ", "της"),
        ("ԱՂՎԵՍ", "աղվես"),
        ("𐐔𐐇𐐝𐐀𐐡𐐇𐐓", "𐐼𐐯𐑅𐐨𐑉𐐯𐐻"),
        ("STRASSE bei Nacht", "straße"),
        ("Straße bei Nacht", "STRASSE"),
        (NFC, unicodedata.normalize("NFD", "BRÛLÉE")),
        (NFD, unicodedata.normalize("NFC", "brûlée")),
        (unicodedata.normalize("NFD", "여우와 눈"), "여우"),
        ("がぎぐ", unicodedata.normalize("NFD", "ぎ")),
        ("一只狐狸在雪地里", "狐"),
        ("一只狐狸在雪地里", "狐狸"),
        ("一只🐱", "🐱"),
        ("100% cotton", "0%"),
        ("snake_case", "E_C"),
        ("stop!", "!"),
        ("C:\\new 'file' \"x\"", "\\NEW '"),
    ],
)
def test_a_prompt_is_found_however_it_is_written(alice, prompt, text):
    draw(alice, prompt)

    assert found(alice, text) == [prompt]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("café", "cafe"),
        ("cafe", "café"),
        (unicodedata.normalize("NFD", "café"), "cafe"),
        ("ёлка", "елка"),
        ("はは", "ハハ"),
        ("🐱🐱", "🐶"),
        ("a fox", "%"),
        ("a fox", "a_fox"),
        ("a fox", "!"),
        ("a fox", "\\"),
        ("a fox", "fox a"),
    ],
)
def test_what_is_written_otherwise_is_not_found(alice, prompt, text):
    draw(alice, prompt)

    assert found(alice, text) == []


def test_rows_of_the_release_before_are_found_at_once_and_folded_at_the_next_start(alice):
    add_generations(alice, 3, prompt_text="Fox and ЛИСА", updated_at="2024-01-01 00:00:00")

    before = found(alice, "fox")
    history.fill_search_texts()

    assert len(before) == len(found(alice, "лиса")) == 3
    texts = db.all("SELECT DISTINCT search_text, updated_at FROM image_generations")
    assert [str(row["updated_at"]) for row in texts] == ["2024-01-01 00:00:00"]


def test_old_rows_are_folded_some_at_a_time(alice, monkeypatch):
    monkeypatch.setattr(history, "LOOK_ROWS", 3)
    monkeypatch.setattr(history, "FILL_ROWS", 2)
    draw(alice, "Fox")
    add_generations(alice, 7, prompt_text="狐狸 ÉTÉ")
    db.execute("DELETE FROM image_generations WHERE id = 4")

    history.fill_search_texts()

    missing = "SELECT COUNT(*) FROM image_generations WHERE search_text IS NULL"
    assert (db.value(missing), len(found(alice, "été"))) == (0, 6)


# -- Pages --------------------------------------------------------------------------------------


def walk(person: Person, **query) -> list[list[str]]:
    """Return the prompts of each page that the cursor leads to."""
    pages = []
    cursor = None
    while not pages or cursor:
        page = look(person, **query, **({"cursor": cursor} if cursor else {})).json["data"]
        pages.append(prompts(page))
        cursor = page["pagination"]["nextCursor"]
    return pages


@pytest.fixture
def few_at_a_time(monkeypatch):
    monkeypatch.setattr(history, "MAX_LOOKED_THROUGH", 10)


def add_numbered(person, number: int, **columns) -> None:
    for index in range(number):
        db.insert(
            "image_generations",
            **{"user_id": person.id, "status": "completed", "prompt_text": f"n{index}.", **columns},
        )


@pytest.mark.parametrize("times", [{}, {"created_at": "2024-01-01 00:00:00"}])
def test_the_cursor_leads_a_search_through_everything_once(alice, few_at_a_time, times):
    add_numbered(alice, 34, **times)

    assert walk(alice, q="n3", per_page=3) == [["n33.", "n32.", "n31."], ["n30."], [], ["n3."], []]


@pytest.mark.parametrize("query", [{"q": "n"}, {"favorite": "false", "status": "completed"}])
def test_a_search_counts_to_the_end_of_its_page_and_one_more(alice, query):
    add_numbered(alice, 7)

    pages = [look(alice, page=page, per_page=3, **query).json["data"] for page in (1, 2, 3, 4)]

    assert [len(page["records"]) for page in pages] == [3, 3, 1, 0]
    assert [page["pagination"]["total"] for page in pages] == [4, 7, 7, 7]
    assert look(alice, page=10**9, **query).json["data"]["pagination"]["total"] == 7


def test_filters_that_no_index_serves_together_look_through_as_much(alice, few_at_a_time):
    add_numbered(alice, 12, favorite=1)
    add_numbered(alice, 11, favorite=1, status="failed")

    pages = walk(alice, favorite="true", status="completed")

    assert [len(page) for page in pages] == [0, 9, 3]


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("query", ["", "?q=n"])
def test_times_of_any_kind_are_put_in_one_order(alice, query):
    for moment in (b"x", None, "2024-01-01 00:00:00", 5.5, 7, "2025-01-01 00:00:00"):
        add_numbered(alice, 1, created_at=moment, prompt_text=f"n {moment}")

    sorted_by_sqlite = db.all("SELECT prompt_text FROM image_generations ORDER BY created_at DESC")
    assert prompts(alice.history(query)) == [row["prompt_text"] for row in sorted_by_sqlite]


# -- Costs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"status": "completed"},
        {"favorite": "false"},
        {"model": "x"},
        {"since": "2020-01-01", "until": "2999-01-01"},
        {"q": "n"},
        {"status": "completed", "favorite": "false"},
        {"page": 3},
    ],
)
def test_no_history_page_goes_to_a_temporary_table_on_disk(database, alice, query):
    if database != "mariadb":
        pytest.skip("MariaDB counts them")
    add_numbered(alice, 25, generation_params_json="{}")
    analyze(database)
    db.execute("FLUSH STATUS")

    assert look(alice, **query).status_code == 200

    [on_disk] = session_status("Created_tmp_disk_tables")
    assert on_disk["Value"] == "0"


@pytest.fixture
def slow(monkeypatch):
    """A search of something that takes for ever."""
    endless = {
        "mariadb": "SLEEP(100) = 0",
        "sqlite": """
            (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n)
        """,
    }
    monkeypatch.setattr(history, "MAX_SECONDS", 1)
    return lambda database: monkeypatch.setitem(history.FILTERS, "q", endless[database])


def test_a_search_that_takes_too_long_is_stopped(database, alice, slow):
    draw(alice, "a fox")
    slow(database)

    response = look(alice, q="fox")

    assert (response.status_code, response.json["code"]) == (503, "query_too_slow")
    assert int(response.headers["Retry-After"]) > 0
    assert look(alice).status_code == 200


def test_the_limit_of_time_is_said_in_the_words_of_the_server(killable, monkeypatch):
    connection = pools.connect()

    monkeypatch.setattr(connection.driver, "server_version", "9.7.0")
    on_mysql = connection._limited("SELECT 1", 2)
    monkeypatch.setattr(connection.driver, "server_version", "5.5.5-10.11.2-MariaDB")
    on_mariadb = connection._limited("SELECT 1", 2)

    assert on_mysql == "SELECT /*+ MAX_EXECUTION_TIME(2000) */ 1"
    assert on_mariadb == "SET STATEMENT max_statement_time = 2 FOR SELECT 1"


def test_a_third_search_of_an_account_at_a_time_is_refused(alice, bob):
    slots = [search._take_slot(alice.id) for _ in range(2)]
    try:
        refused = [look(alice, q="x"), look(alice, status="failed", favorite="true")]
        others = [look(alice), look(alice, status="failed"), look(bob, q="x")]
    finally:
        for slot in slots:
            search._free_slot(slot)

    assert [(one.status_code, one.json["code"]) for one in refused] == [
        (429, "too_many_searches")
    ] * 2
    assert int(refused[0].headers["Retry-After"]) > 0
    assert [one.status_code for one in [*others, look(alice, q="x")]] == [200] * 4


def test_searches_in_other_web_processes_count_until_they_die(alice, settings):
    code = f"""
import config, time
config.load()
from images import search
search._take_slot({alice.id}), search._take_slot({alice.id})
print("holds", flush=True)
time.sleep(1000)
"""
    environment = clean_environment(DATA_DIR=str(settings.DATA_DIR))
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "holds\n"
        during = look(alice, q="x").status_code
    finally:
        other.kill()
        other.communicate()

    assert (during, look(alice, q="x").status_code) == (429, 200)


@pytest.mark.parametrize("query", [{"q": "x"}, {"page": 10**9}])
def test_a_search_that_cannot_soon_begin_is_told_so(alice, monkeypatch, query):
    monkeypatch.setattr(heavy.searches, "count", 1000)

    refused, plain = look(alice, **query), look(alice)

    assert (refused.status_code, refused.json["code"]) == (503, "server_busy")
    assert (plain.status_code, look(alice, page=7).status_code) == (200, 200)


def test_a_session_that_ended_searches_nothing(alice):
    db.execute("UPDATE users SET token_version = 7")

    assert look(alice, q="x").json["code"] == "token_invalid"
