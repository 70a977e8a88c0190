"""Log-in at a real provider, Django OAuth Toolkit, which checks PKCE, redirect URI and secret."""

import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests

import app as service
import db
from accounts import identities, invites, oidc
from accounts.schemas import InviteInput
from tests.conftest import Person
from tests.oidc_provider import CLIENT
from tests.servers import Provider, free_port
from tests.test_openapi import check_documented
from tests.test_second_factor import Phone
from validation import parse

API = "/api/auth/oidc"
FRONT_END = "https://studio.example/#/login"
VERIFIER = "v" * 43
CHALLENGE = identities.challenge_of(VERIFIER)
PASSWORD = {"password": "secret1"}


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    """The address of a provider that all tests share."""
    callbacks = f"http://localhost{API}/callback https://api.example/studio{API}/callback"
    process = Provider(tmp_path_factory.mktemp("provider"), callbacks)
    yield process.url
    process.stop()


@pytest.fixture
def openid(provider, database, settings):
    """The service with this provider."""
    settings.OIDC_ISSUER = f"{provider}/o"
    settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = CLIENT["id"], CLIENT["secret"]
    settings.OIDC_RETURN_URL, settings.OIDC_LABEL = FRONT_END, "Example"
    return SimpleNamespace(url=provider, settings=settings)


def documented(answer):
    check_documented(answer)
    return answer


class Browser(Person):
    """A browser that is logged in at the provider; the front end in it has a verifier."""

    def __init__(self, openid, name: str, verifier: str = VERIFIER, **claims: str):
        super().__init__()
        self.verifier = verifier
        self.provider = requests.Session()
        query = {"name": name, "preferred_username": name, **claims}
        assert self.provider.get(f"{openid.url}/login", params=query).ok

    def begin(self, **options) -> str:
        """Return where the service leads to."""
        challenge = identities.challenge_of(self.verifier)
        answer = self.get(f"{API}/login?challenge={challenge}", **options)
        assert answer.status_code == 302
        check_documented(answer)
        return answer.location

    def at_provider(self, address: str) -> str:
        """Return where the provider leads to."""
        answer = self.provider.get(address, allow_redirects=False)
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def come_back(self, address: str, **options) -> dict[str, str]:
        """Return what the front end is told."""
        parts = urlsplit(address)
        answer = self.get(f"{parts.path}?{parts.query}", **options)
        assert answer.status_code == 302
        check_documented(answer)
        shown = urlsplit(answer.location)
        assert answer.location.startswith("https://studio.example/?")
        assert shown.fragment == "/login"
        return {name: value for name, [value] in parse_qs(shown.query).items()}

    def log_in_there(self) -> str:
        """Return the login code that the front end gets."""
        return self.come_back(self.at_provider(self.begin()))["loginCode"]

    def exchange(self, login_code: str, **more):
        body = {"loginCode": login_code, "verifier": self.verifier, **more}
        return documented(self.post(f"{API}/token", json=body))

    def link(self, login_code: str, **more):
        body = {"loginCode": login_code, "verifier": self.verifier, **PASSWORD, **more}
        return documented(self.post(f"{API}/link", json=body))


CONFIRMED = {"email": "carol@example.com", "email_verified": "true"}


@pytest.fixture
def carol(openid):
    return Browser(openid, "carol", **CONFIRMED)


def test_first_log_in_opens_an_account_and_the_next_finds_it(carol):
    answers = [carol.exchange(carol.log_in_there()) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json["message"] == "登录成功"
    for answer in answers:
        assert set(answer.json["data"]) == {"token", "user"}
        user = {"username": "carol", "email": "carol@example.com", "avatarUrl": None}
        assert answer.json["data"]["user"] == user
    carol.headers = {"Authorization": f"Bearer {answers[1].json['data']['token']}"}
    assert carol.get("/api/auth/profile").json["data"]["username"] == "carol"
    assert db.value("SELECT COUNT(*) FROM users") == 1


def test_what_the_button_says(openid, client):
    assert client.get(API).json["data"] == {"label": "Example"}


@pytest.mark.parametrize("path", ["", "/login", "/callback"])
def test_without_a_provider_there_is_nothing(client, path):
    assert client.get(f"{API}{path}").status_code == 404
    body = {"loginCode": "x", "verifier": VERIFIER}
    assert client.post(f"{API}/token", json=body).status_code == 404


def test_request_at_the_provider_has_state_nonce_and_challenge(carol):
    first, second = (dict(parse_qs(urlsplit(carol.begin()).query)) for _ in range(2))

    assert first["code_challenge_method"] == ["S256"]
    assert first["redirect_uri"] == [f"http://localhost{API}/callback"]
    assert first["scope"] == ["openid profile email"]
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name] and len(first[name][0]) >= 20


def test_cookie_is_for_the_browser_alone(openid, carol):
    answer = carol.get(f"{API}/login?challenge={CHALLENGE}")

    [cookie] = answer.headers.getlist("Set-Cookie")
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and f"Path={API}" in cookie
    assert not re.search("nonce|code_verifier", cookie)


def test_redirect_uri_is_that_of_the_proxy(openid):
    openid.settings.TRUSTED_PROXIES = service.config.networks("127.0.0.1")
    proxy = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/studio", "Host": "api.example"}
    carol = Browser(openid, "carol", **CONFIRMED)

    address = carol.begin(headers=proxy)

    [uri] = parse_qs(urlsplit(address).query)["redirect_uri"]
    assert uri == f"https://api.example/studio{API}/callback"
    assert carol.at_provider(address).startswith(uri)


def test_browser_comes_back_below_the_prefix(openid, carol):
    openid.settings.URL_PREFIX = "/imagegen"

    answer = carol.get(f"/imagegen{API}/login?challenge={CHALLENGE}")

    [uri] = parse_qs(urlsplit(answer.headers["Location"]).query)["redirect_uri"]
    assert uri == f"http://localhost/imagegen{API}/callback"
    assert f"Path=/imagegen{API};" in answer.headers["Set-Cookie"]


def test_forwarded_headers_of_strangers_count_for_nothing(carol):
    address = carol.begin(headers={"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/x"})

    assert parse_qs(urlsplit(address).query)["redirect_uri"] == [f"http://localhost{API}/callback"]


def test_provider_leads_to_no_host_that_it_does_not_know(carol):
    address = carol.begin(headers={"Host": "evil.example"})

    answer = carol.provider.get(address, allow_redirects=False)

    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["next", "return_url", "redirect_uri", "OIDC_RETURN_URL"])
def test_nobody_can_say_where_it_leads(carol, name):
    evil = urlencode({name: "https://evil.example/"})

    there = carol.get(f"{API}/login?challenge={CHALLENGE}&{evil}").location
    back = carol.get(f"{API}/callback?{evil}").location

    assert "evil" not in there and "evil" not in back


@pytest.mark.parametrize("challenge", ["", "x", "x" * 42, "x" * 44, "=" * 43, "é" * 43])
def test_challenge_of_another_form_is_named(openid, client, challenge):
    answer = client.get(f"{API}/login?{urlencode({'challenge': challenge})}")

    assert answer.status_code == 400 and list(answer.json["fields"]) == ["challenge"]


# -- Whoever steals, forges or repeats ------------------------------------------------------------


def test_code_is_good_once(carol):
    code = carol.log_in_there()

    answers = [carol.exchange(code) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 401]
    assert answers[1].json["code"] == "login_code_invalid"


def test_code_is_good_for_a_minute(carol):
    code = carol.log_in_there()
    db.execute("UPDATE login_codes SET expires_at = expires_at - 60")

    assert carol.exchange(code).json["code"] == "login_code_invalid"
    assert db.value("SELECT COUNT(*) FROM users") == 0


def test_stolen_code_is_nothing_without_the_verifier(carol):
    code = carol.log_in_there()
    thief = Person()

    answer = thief.post(f"{API}/token", json={"loginCode": code, "verifier": "w" * 43})

    assert answer.json["code"] == "login_code_invalid"
    assert carol.exchange(code).status_code == 200


def test_another_browser_cannot_finish_a_log_in(openid, carol):
    """Nobody can be made to log in as the attacker, or to log the attacker in as themselves."""
    mallory = Browser(openid, "mallory", verifier="m" * 43)
    to_victim = mallory.at_provider(mallory.begin())
    by_victim = carol.at_provider(mallory.begin())

    assert carol.come_back(to_victim) == {"error": "oidc_state_invalid"}
    assert carol.come_back(by_victim) == {"error": "oidc_state_invalid"}
    carol.begin()
    assert carol.come_back(to_victim) == {"error": "oidc_state_invalid"}


def test_code_of_another_log_in_is_refused_by_pkce(openid, carol):
    mallory = Browser(openid, "mallory")
    stolen = parse_qs(urlsplit(carol.at_provider(carol.begin())).query)["code"][0]
    [state] = parse_qs(urlsplit(mallory.begin()).query)["state"]

    told = mallory.come_back(f"{API}/callback?{urlencode({'code': stolen, 'state': state})}")

    assert told == {"error": "oidc_failed"}


def test_way_back_can_be_gone_once(carol):
    back = carol.at_provider(carol.begin())
    cookie = carol.http.get_cookie(oidc_cookie := "openid", path=API).value
    assert "loginCode" in carol.come_back(back)
    without = carol.come_back(back)
    carol.http.set_cookie(oidc_cookie, cookie, path=API)

    assert without == {"error": "oidc_state_invalid"}
    assert carol.come_back(back) == {"error": "oidc_failed"}


@pytest.mark.parametrize("cookie", ["", "x", "gAAAAA", "é"])
def test_forged_cookie_is_refused(carol, cookie):
    back = carol.at_provider(carol.begin())
    carol.http.set_cookie("openid", cookie, path=API)

    assert carol.come_back(back) == {"error": "oidc_state_invalid"}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "oidc_state_invalid"),
        ("state=x&code=y", "oidc_state_invalid"),
        ("state={state}", "oidc_denied"),
        ("state={state}&error=access_denied", "oidc_denied"),
        ("state={state}&code=x&iss=https://evil.example", "oidc_denied"),
        ("state={state}&code=x", "oidc_failed"),
        ("state=%C3%A9", "oidc_state_invalid"),
    ],
)
def test_whatever_comes_back_leads_to_the_front_end(carol, query, error):
    [state] = parse_qs(urlsplit(carol.begin()).query)["state"]

    assert carol.come_back(f"{API}/callback?{query.format(state=state)}") == {"error": error}


def test_id_token_must_be_of_this_log_in_and_for_us(openid, carol, monkeypatch):
    seen = []
    read = oidc.read_id_token
    monkeypatch.setattr(oidc, "read_id_token", lambda *given: seen.append(given) or read(*given))
    carol.log_in_there()
    token, nonce = seen[0]

    def refused(token, nonce) -> bool:
        with pytest.raises(service.ApiError), oidc.provider_errors():
            read(token, nonce)
        return True

    assert read(token, nonce)["sub"]
    assert refused(token, "another nonce")
    assert refused({**token, "id_token": token["id_token"][:-9] + "AAAAAAAAA"}, nonce)
    _, claims, _ = token["id_token"].split(".")
    assert refused({**token, "id_token": f"eyJhbGciOiJub25lIn0.{claims}."}, nonce)
    assert refused({}, nonce)
    openid.settings.OIDC_CLIENT_ID = "another"
    assert refused(token, nonce)


def test_code_sent_at_once_logs_in_once(carol):
    code = carol.log_in_there()
    body = {"loginCode": code, "verifier": VERIFIER}

    with ThreadPoolExecutor(6) as threads:
        calls = [
            threads.submit(service.app.test_client().post, f"{API}/token", json=body)
            for _ in range(6)
        ]
        statuses = sorted(call.result().status_code for call in calls)

    assert statuses == [200] + [401] * 5
    assert db.value("SELECT COUNT(*) FROM users") == 1


def test_wrong_secret_is_told_as_a_failure(openid, carol):
    openid.settings.OIDC_CLIENT_SECRET = "wrong"

    assert carol.come_back(carol.at_provider(carol.begin())) == {"error": "oidc_failed"}


def test_provider_that_is_away_is_told(openid, client):
    openid.settings.OIDC_ISSUER = f"http://127.0.0.1:{free_port()}"

    answer = client.get(f"{API}/login?challenge={CHALLENGE}")

    assert answer.location == "https://studio.example/?error=oidc_unavailable#/login"


def test_provider_is_not_asked_without_end(openid, client):
    openid.settings.OIDC_ISSUER = f"http://127.0.0.1:{free_port()}"
    openid.settings.LOGIN_FAILURES_PER_ADDRESS = 2

    told = [client.get(f"{API}/login?challenge={CHALLENGE}").location for _ in range(3)]

    assert ["oidc_unavailable" in address for address in told] == [True, True, False]
    assert "error=too_many_attempts" in told[2]


def test_provider_of_another_name_is_none(openid, client):
    openid.settings.OIDC_ISSUER += "/"

    assert "error=oidc_failed" in client.get(f"{API}/login?challenge={CHALLENGE}").location


# -- Which account --------------------------------------------------------------------------------


def test_same_email_is_not_the_same_account(openid, alice):
    browser = Browser(openid, "alice2", email="alice@example.com", email_verified="true")

    answer = browser.exchange(browser.log_in_there())

    assert (answer.status_code, answer.json["code"]) == (409, "email_taken")
    assert db.value("SELECT COUNT(*) FROM identities") == 0


@pytest.mark.parametrize("claims", [{}, {"email": "alice@example.com"}, {"email_verified": "true"}])
def test_email_that_is_not_confirmed_is_not_taken_over(openid, alice, claims):
    browser = Browser(openid, "dave", **claims)

    user = browser.exchange(browser.log_in_there()).json["data"]["user"]

    assert user["username"] == "dave" and user["email"].endswith("@openid.invalid")


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ("alice", r"alice-\w{4}"),
        ("ALICE@example.com", r"ALICE-\w{4}"),
        ("al", r"al-\w{4}"),
        ("root", r"root-\w{4}"),
        ("x" * 99, "x{20}"),
        ("\u202e\u0430lice", r"user-\w{12}"),
        ("", "user"),
        ("日落", r"日落-\w{4}"),
    ],
)
def test_name_is_free_and_valid(openid, alice, wanted, pattern):
    openid.settings.RESERVED_NAMES = ["root"]

    assert re.fullmatch(pattern, oidc.free_name(wanted))


def test_account_of_the_provider_has_no_password_that_anyone_knows(carol):
    carol.exchange(carol.log_in_there())
    answers = [
        carol.post("/api/auth/login", json={"username": "carol", "password": guess})
        for guess in ("", "None", "secret1", "!")
    ]

    assert [answer.status_code for answer in answers] == [400, 401, 401, 401]


def test_too_many_new_accounts_are_refused(openid, carol):
    openid.settings.REGISTRATIONS_PER_ADDRESS = 1
    carol.exchange(carol.log_in_there())
    other = Browser(openid, "dave")

    answer = other.exchange(other.log_in_there())

    assert answer.json["code"] == "too_many_registrations"


def test_registration_may_be_closed_or_ask_for_an_invite(openid, carol):
    code = carol.log_in_there()
    openid.settings.REGISTRATION = "closed"
    assert carol.exchange(code).json["code"] == "registration_closed"

    openid.settings.REGISTRATION = "invite"
    assert carol.exchange(code).json["code"] == "invite_required"
    assert carol.exchange(code, inviteCode="nonsense").json["code"] == "code_unknown"
    assert db.value("SELECT COUNT(*) FROM users") == 0

    _, invite = invites.create(parse(InviteInput, {}))
    assert carol.exchange(code, inviteCode=invite).status_code == 200
    openid.settings.REGISTRATION = "closed"
    assert carol.exchange(carol.log_in_there()).status_code == 200


def test_disabled_account_is_told_so(carol):
    carol.exchange(carol.log_in_there())
    db.execute("UPDATE users SET is_disabled = 1")

    assert carol.exchange(carol.log_in_there()).json["code"] == "account_disabled"


def test_deleted_account_leaves_no_identity(carol):
    carol.exchange(carol.log_in_there())
    user = service.registration.users.get_user(1)

    service.registration.delete_account(user)

    assert db.value("SELECT COUNT(*) FROM identities") == 0


# -- Linked to an account that is there -----------------------------------------------------------


@pytest.fixture
def linked(openid, alice) -> Browser:
    """alice's browser; she is somebody else's name at the provider."""
    browser = Browser(openid, "a.liddell", email="alice@example.com", email_verified="true")
    browser.headers = alice.headers
    assert browser.link(browser.log_in_there()).status_code == 200
    return browser


def test_linked_identity_logs_in_as_the_account(linked):
    user = linked.exchange(linked.log_in_there()).json["data"]["user"]

    assert user["username"] == "alice"
    [identity] = linked.get(f"{API}/link").json["data"]["identities"]
    assert set(identity) == {"issuer", "subject", "createdAt"}


def test_link_takes_password_and_token(linked, client):
    code = linked.log_in_there()

    assert linked.link(code, password="wrong1").json["code"] == "wrong_password"
    assert linked.link(code, verifier="w" * 43).json["code"] == "login_code_invalid"
    body = {"loginCode": code, "verifier": VERIFIER, **PASSWORD}
    assert client.post(f"{API}/link", json=body).json["code"] == "token_missing"
    assert linked.link(code).status_code == 200


def test_identity_belongs_to_one_account(linked, bob):
    code = linked.log_in_there()
    linked.headers = bob.headers

    answer = linked.link(code)

    assert (answer.status_code, answer.json["code"]) == (409, "identity_taken")
    assert linked.get(f"{API}/link").json["data"] == {"identities": []}


def test_link_is_undone_with_the_password(linked):
    def unlink(password: str):
        return linked.open("DELETE", f"{API}/link", json={"password": password})

    assert unlink("wrong1").status_code == 403
    assert unlink("secret1").json["data"] == {"identities": []}
    assert linked.exchange(linked.log_in_there()).json["code"] == "email_taken"


def test_second_factor_is_asked_for_here_too(linked):
    phone = Phone(linked)
    phone.confirm()
    code = linked.log_in_there()
    before = db.one("SELECT expires_at FROM login_codes")["expires_at"]

    asked = [linked.exchange(code).json["code"] for _ in range(2)]
    wrong = linked.exchange(code, code="000000")
    later = db.one("SELECT expires_at FROM login_codes")["expires_at"]
    right = linked.exchange(code, code=phone.code(1))

    assert asked == ["second_factor_required"] * 2
    assert before < later <= before + 60
    assert wrong.json["code"] == "second_factor_wrong"
    assert right.status_code == 200


def test_another_machine_may_finish(openid, carol, live):
    """What one process began, any other finishes: cookie and database hold all of it."""
    names = (
        "SECRET_KEY",
        "OIDC_ISSUER",
        "OIDC_CLIENT_ID",
        "OIDC_CLIENT_SECRET",
        "OIDC_RETURN_URL",
    )
    chosen = {name: getattr(openid.settings, name) for name in names}
    machines = [live(**chosen) for _ in range(2)]
    host = {"Host": "localhost"}
    browser = requests.Session()
    begun = browser.get(
        f"{machines[0].url}{API}/login?challenge={CHALLENGE}", headers=host, allow_redirects=False
    )
    back = urlsplit(carol.at_provider(begun.headers["Location"]))
    cookie = {"Cookie": begun.headers["Set-Cookie"].partition(";")[0]}
    told = requests.get(
        f"{machines[1].url}{back.path}?{back.query}",
        headers={**host, **cookie},
        allow_redirects=False,
    )
    [code] = parse_qs(urlsplit(told.headers["Location"]).query)["loginCode"]

    body = {"loginCode": code, "verifier": VERIFIER}
    answer = requests.post(f"{machines[0].url}{API}/token", json=body)

    assert answer.json()["data"]["user"]["username"] == "carol"
