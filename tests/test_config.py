import base64
import os
import secrets
import stat
import subprocess
import sys
import uuid
from contextlib import nullcontext
from dataclasses import fields

import pytest
from flask.cli import load_dotenv

import config
from engines import catalog
from tests.servers import ROOT, clean_environment

GOOD_KEY = "7f1c09e2b85d4a36c0e9f47a1d2b6835"
PRODUCTION = {"FLASK_ENV": "production", "SECRET_KEY": GOOD_KEY, "DATABASE": "sqlite"}
OIDC = {
    "OIDC_ISSUER": "https://login.example",
    "OIDC_CLIENT_ID": "x",
    "OIDC_RETURN_URL": "https://studio.example/login",
}
MYSQL = {"MYSQL_HOST": "db", "MYSQL_USER": "u", "MYSQL_DB": "d"}


@pytest.fixture
def load(settings, tmp_path):
    return lambda **environ: config.load({"DATA_DIR": str(tmp_path), **environ})


def test_nothing_set_means_sqlite_on_port_8000(load):
    settings = load()

    assert (settings.uses_mysql, settings.HOST, settings.PORT, settings.WEB_WORKERS) == (
        False,
        "127.0.0.1",
        8000,
        1,
    )
    assert settings.CORS_ORIGINS == ["http://localhost:5173", "http://localhost:5174"]


def test_the_published_names_choose_mysql(load):
    settings = load(
        **MYSQL,
        MYSQL_PORT="3307",
        MYSQL_PASSWORD="p",
        CORS_ORIGINS="https://a.example, http://b:81/",
    )

    assert (settings.uses_mysql, settings.MYSQL_PORT, settings.MYSQL_PASSWORD) == (True, 3307, "p")
    assert settings.CORS_ORIGINS == ["https://a.example", "http://b:81"]


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"FLASK_ENV": "prod"}, "FLASK_ENV"),
        ({"PORT": "http"}, "PORT"),
        ({"REGISTRATION": "private"}, "REGISTRATION"),
        ({"INVITE_FAILURES_PER_ADDRESS": "0"}, "INVITE_FAILURES_PER_ADDRESS"),
        ({"PORT": "70000"}, "PORT"),
        ({"PORT": "1.5"}, "PORT"),
        ({"MAX_RESULT_PIXELS": "1000"}, "MAX_RESULT_PIXELS"),
        ({"MAX_RESULT_PIXELS": "200000000"}, "MAX_RESULT_PIXELS"),
        ({"TOKEN_HOURS": "0"}, "TOKEN_HOURS"),
        ({"TOKEN_HOURS": "nan"}, "TOKEN_HOURS"),
        ({"CORS_ORIGINS": "example.com"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://a.example/path"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://*"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://*.*.example"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://a*.example"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://a.*"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://.example.com"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "*://a.example"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "http://localhost:*"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": ".*"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://(a|b).example"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://a.example https://b.example"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://user@a.example"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://[::1"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://[1::2::3]"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "https://-é.example"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "null"}, "CORS_ORIGINS"),
        ({"TRUSTED_PROXIES": "nginx"}, "TRUSTED_PROXIES"),
        ({"REQUIRE_2FA": "all"}, "REQUIRE_2FA"),
        *[({"URL_PREFIX": text}, "URL_PREFIX") for text in ("/a b", "/a//b", "/..", "/é", "/a?b")],
        ({"OIDC_ISSUER": "login.example"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://login.example"}, "OIDC_CLIENT_ID"),
        ({"OIDC_ISSUER": "https://login.example", "OIDC_CLIENT_ID": "x"}, "OIDC_RETURN_URL"),
        ({**OIDC, "OIDC_ISSUER": "http://login.example"}, "OIDC_ISSUER"),
        ({**OIDC, "OIDC_RETURN_URL": "javascript:alert(1)"}, "OIDC_RETURN_URL"),
        ({**OIDC, "OIDC_RETURN_URL": "/login"}, "OIDC_RETURN_URL"),
        ({"DATABASE": "postgres"}, "DATABASE"),
        ({"DATABASE": "mysql"}, "MYSQL_HOST"),
        ({"DATABASE": "sqlite", **MYSQL}, "DATABASE"),
        ({"MYSQL_HOST": "db", "MYSQL_DB": "d"}, "MYSQL_USER"),
        ({"MYSQL_HOST": "db", "MYSQL_USER": "u"}, "MYSQL_DB"),
        ({**MYSQL, "MYSQL_SSL_CA": "/no/such/file"}, "MYSQL_SSL_CA"),
        *[({**MYSQL, "MYSQL_HOST": host}, "MYSQL_HOST") for host in ("a b", "a,b:0", "a:x", "a/b")],
        ({"PASSWORD_HASH": "md5"}, "PASSWORD_HASH"),
        ({"WEB_WORKERS": "-1"}, "WEB_WORKERS"),
        ({"SUBMITS_PER_MINUTE": "0"}, "SUBMITS_PER_MINUTE"),
        ({"IMAGE_DAYS": "-1"}, "IMAGE_DAYS"),
        ({"TRASH_DAYS": "0.5"}, "TRASH_DAYS"),
        ({"MAX_STORAGE_MB": "-1"}, "MAX_STORAGE_MB"),
        ({"UPLOADS_PER_ADDRESS": "0"}, "UPLOADS_PER_ADDRESS"),
        ({"UPLOADS_PER_ACCOUNT": "many"}, "UPLOADS_PER_ACCOUNT"),
        *[({"QUOTA_TIMEZONE": name}, "QUOTA_TIMEZONE") for name in ("UTC+8", "Asia", "../x", "\0")],
        *[({"MAIL_FROM": text}, "MAIL_FROM") for text in ("Studio", "a@b.de, c@d.de", "测@b.de")],
        ({"SMTP_URL": "smtp://localhost"}, "MAIL_FROM"),
        ({"REQUIRE_EMAIL": "on"}, "SMTP_URL"),
        *[
            ({"BROKER_URL": text}, "BROKER_URL")
            for text in ("rabbit:5672", "http://rabbit", "amqp://", "amqp://rabbit:x", "redis:///0")
        ],
        ({"PUBLIC_URL": "studio.example.com"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://studio.example.com/#/"}, "PUBLIC_URL"),
        ({"RESET_PAGE": "/reset"}, "RESET_PAGE"),
        ({"CONFIRM_PAGE": "https://evil.example/{code}"}, "CONFIRM_PAGE"),
        ({"PASSWORD_MAX_LENGTH": "19"}, "PASSWORD_MAX_LENGTH"),
        ({"PASSWORD_MAX_LENGTH": "1001"}, "PASSWORD_MAX_LENGTH"),
        ({"PASSWORD_BLOCKLIST": "/no/such/file"}, "PASSWORD_BLOCKLIST"),
        ({**PRODUCTION, "SECRET_KEY": ""}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": "short"}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": "a" * 64}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": "your_secret_key_0123456789abcdefghij"}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY_PREVIOUS": "short"}, "SECRET_KEY_PREVIOUS"),
        ({**PRODUCTION, "DATABASE": ""}, "MYSQL_HOST"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(load, environ, name):
    with pytest.raises(config.SettingError) as stopped:
        load(**environ)

    assert str(stopped.value).startswith(f"{name}: ")
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(
    ("written", "kept"),
    [("/imagegen/", "/imagegen"), ("a/b-c", "/a/b-c"), ("/", ""), ("", ""), ("/v1.0", "/v1.0")],
)
def test_a_prefix_is_kept_without_a_slash_at_its_end(load, written, kept):
    assert kept == load(URL_PREFIX=written).URL_PREFIX


def test_an_error_about_a_key_does_not_show_it(load):
    with pytest.raises(config.SettingError) as stopped:
        load(**{**PRODUCTION, "SECRET_KEY": "hunter2"})

    assert "hunter2" not in str(stopped.value)


def test_production_starts_with_a_key_and_a_chosen_database(load):
    assert load(**PRODUCTION).is_production
    assert load(**{**PRODUCTION, "DATABASE": "", **MYSQL}).WEB_WORKERS == 2


def test_production_allows_no_origin_that_was_not_named(load):
    assert load(**PRODUCTION).CORS_ORIGINS == []


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("HTTPS://A.Example/", "https://a.example"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("http://[0:0::1]:5173", "http://[::1]:5173"),
        ("https://例子.测试", "https://xn--fsqu00a.xn--0zwm56d"),
        ("https://*.straße.example", "https://*.xn--strae-oqa.example"),
        ("*", "*"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(load, written, sent):
    assert [sent] == load(CORS_ORIGINS=written).CORS_ORIGINS


def test_a_development_key_is_made_once_and_readable_by_its_owner_only(load, tmp_path):
    first, second = load().SECRET_KEY, load().SECRET_KEY

    path = tmp_path / "instance" / "secret_key"
    assert first == second == path.read_text() and len(first) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["secret_key"]


def test_processes_that_start_at_once_agree_on_the_key(tmp_path):
    command = [sys.executable, "-c", "import config; print(config.load().SECRET_KEY)"]
    environment = clean_environment(DATA_DIR=str(tmp_path))

    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]

    assert len({process.communicate()[0] for process in processes}) == 1


def test_a_wrong_setting_is_one_line_on_the_command_line(tmp_path):
    environment = clean_environment(DATA_DIR=str(tmp_path), PORT="http")

    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert ended.stderr == "PORT: must be a whole number from 1 to 65535\n"


def test_provider_without_its_package_stops_the_start(load, monkeypatch):
    monkeypatch.setattr(config, "find_spec", lambda name: None)

    with pytest.raises(config.SettingError, match=r"^OIDC_ISSUER: .*requirements-oidc\.txt"):
        load(**OIDC)


def test_broker_without_its_packages_stops_the_start(load, monkeypatch):
    monkeypatch.setattr(config, "find_spec", lambda name: None)

    with pytest.raises(config.SettingError, match=r"^BROKER_URL: .*requirements-fleet\.txt"):
        load(BROKER_URL="amqp://localhost")


def test_a_wrong_broker_address_is_not_repeated(load):
    with pytest.raises(config.SettingError) as stopped:
        load(BROKER_URL="amqp://me:p/w@rabbit:5672")

    assert "p/w" not in str(stopped.value)


def test_the_environment_wins_over_the_env_file(settings, monkeypatch):
    monkeypatch.setattr(config, "dotenv_values", lambda path: {"PORT": "1111", "HOST": "10.0.0.1"})
    monkeypatch.setitem(os.environ, "PORT", "2222")
    monkeypatch.delitem(os.environ, "HOST")

    loaded = config.load()

    assert (loaded.PORT, loaded.HOST) == (2222, "10.0.0.1")


def test_the_example_names_every_setting_in_the_same_order():
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = [
        line.lstrip("# ").split("=")[0]
        for line in lines
        if "=" in line and line.lstrip("# ")[0].isupper()
    ]

    assert named == [item.name for item in fields(config.Settings)]


def test_every_setting_is_in_both_readmes():
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert [item.name for item in fields(config.Settings) if f"`{item.name}`" not in text] == []


# -- As Windows editors, containers and people write them -----------------------------------------


@pytest.fixture
def env_file(settings, monkeypatch, tmp_path):
    """Write the file `.env`; the environment has no settings of its own."""
    path = tmp_path / ".env"
    monkeypatch.setattr(config, "ENV_FILE", path)
    for item in fields(config.Settings):
        monkeypatch.delitem(os.environ, item.name, raising=False)
    return path


@pytest.mark.parametrize(
    "data",
    [
        "# 端口\nPORT=1900\n".encode("gbk"),
        "PORT=1900\n".encode("utf-16"),
        "PORT=1900\n".encode("utf-16-le"),
        "PORT=1900\n".encode("utf-16-be"),
        "PORT=1900\n".encode("utf-32"),
        "# H\xf6he\nPORT=1900\n".encode("cp1252"),
        b"\xff\x00\x80",
    ],
)
def test_an_env_file_in_another_encoding_stops_the_start_and_is_named(env_file, data):
    env_file.write_bytes(data)

    with pytest.raises(config.SettingError) as stopped:
        config.load()

    assert str(stopped.value) == ".env: is not UTF-8; save it again in that encoding"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_env_file_of_a_windows_editor_is_read(env_file, mark, line_end):
    lines = [f"{mark}PORT=1900", "# 端口", "HOST=0.0.0.0", ""]
    env_file.write_bytes(line_end.join(lines).encode())

    loaded = config.load()

    assert (loaded.PORT, loaded.HOST) == (1900, "0.0.0.0")


@pytest.mark.parametrize("value", ["pa${x}ss#1 2", "${HOME}", "$HOME", "a$${b}", "${x:-y}", "$("])
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_dollar_in_a_value_is_a_dollar(env_file, monkeypatch, value, quote):
    env_file.write_text(f"MYSQL_PASSWORD={quote}{value}{quote}\n")

    alone = config.load().MYSQL_PASSWORD
    # Flask's command puts the file into the environment before us, and replaces what it can.
    load_dotenv(env_file)
    by_flask = config.load().MYSQL_PASSWORD

    assert [alone, by_flask] == [value, value]


@pytest.mark.parametrize(
    "line", ["PORT＝1900", "PORT: 1900", "PORT 1900", "PORT", "MYSQL_USER='a' b", '"a', "=1900"]
)
def test_a_line_of_an_env_file_that_is_no_setting_stops_the_start(env_file, line):
    env_file.write_text(f"# Notes\n\nHOST=127.0.0.1\n\n{line}\n", encoding="utf-8")

    with pytest.raises(config.SettingError) as stopped:
        config.load()

    assert str(stopped.value) == ".env: line 5 is not NAME=value"


def test_marks_within_an_env_file_do_no_harm(env_file):
    env_file.write_bytes("\ufeff\ufeffHOST=10.0.0.1\r\n\ufeffPORT=1900\r\n".encode())

    assert (config.load().HOST, config.settings.PORT) == ("10.0.0.1", 1900)


def test_a_list_may_have_the_commas_of_a_chinese_keyboard(load):
    assert load(RESERVED_NAMES="admin，客服, root").RESERVED_NAMES == ["admin", "客服", "root"]


def test_an_env_file_that_cannot_be_read_is_one_line(env_file):
    env_file.mkdir()

    with pytest.raises(config.SettingError) as stopped:
        config.load()

    assert str(stopped.value).startswith(".env: ") and "\n" not in str(stopped.value)


def test_a_models_file_of_a_windows_editor_is_read(settings, tmp_path):
    text = (ROOT / "models.toml").read_text(encoding="utf-8")
    path = tmp_path / "models.toml"
    path.write_bytes(("\ufeff" + text).replace("\n", "\r\n").encode())

    assert list(catalog.load(path)) == list(catalog.load(ROOT / "models.toml"))


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "utf-16-le"])
def test_a_models_file_in_another_encoding_is_named(settings, tmp_path, encoding):
    path = tmp_path / "models.toml"
    path.write_bytes("# 模型\n".encode(encoding))

    with pytest.raises(config.SettingError) as stopped:
        catalog.load(path)

    assert str(stopped.value).startswith("MODELS_FILE: models.toml: is not UTF-8")


@pytest.mark.parametrize("name", [name for name in config.SECRETS if "_URL" not in name])
def test_a_secret_may_stand_in_a_file(load, tmp_path, name):
    file = tmp_path / "secret"
    file.write_text(f"\ufeff{GOOD_KEY}\r\n", encoding="utf-8")

    environ = {**PRODUCTION, name: "", f"{name}_FILE": str(file)}

    assert getattr(load(**environ), name) == GOOD_KEY


def test_the_password_of_the_mail_server_may_stand_in_a_file(load, tmp_path):
    file = tmp_path / "smtp"
    file.write_text("smtp://me:hunter2@mail.example\n")

    settings = load(SMTP_URL_FILE=str(file), MAIL_FROM="a@b.de")

    assert settings.SMTP_URL.password == "hunter2"


def test_so_may_the_address_of_the_broker(load, tmp_path):
    file = tmp_path / "broker"
    file.write_text("amqp://me:hunter2@rabbit.example\n")

    assert load(BROKER_URL_FILE=str(file)).BROKER_URL == "amqp://me:hunter2@rabbit.example"


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("smtp://Mail.example", ("smtp", "mail.example", 587, "", "")),
        (
            "smtps://a%40b.de:p%2F%3A%23@mail.example/",
            ("smtps", "mail.example", 465, "a@b.de", "p/:#"),
        ),
        ("smtp://[::1]:25", ("smtp", "::1", 25, "", "")),
    ],
)
def test_mail_server_is_read_from_its_url(load, text, server):
    settings = load(SMTP_URL=text, MAIL_FROM="Studio <no-reply@example.com>")

    assert server == settings.SMTP_URL
    assert settings.SMTP_REQUIRE_TLS is False


def test_production_sends_no_mail_without_tls_unless_it_is_asked_to(load):
    mail = {"SMTP_URL": "smtp://localhost", "MAIL_FROM": "a@b.de"}

    assert load(**PRODUCTION, **mail).SMTP_REQUIRE_TLS
    assert not load(**PRODUCTION, **mail, SMTP_REQUIRE_TLS="off").SMTP_REQUIRE_TLS


@pytest.mark.parametrize(
    "text",
    [
        "mail.example",
        "http://mail.example",
        "smtp://",
        "smtp://me:hunter2@mail.example:x",
        "smtp://me:hunter2@mail.example/path",
        "smtp://me:hunter2#@mail.example",
        "smtp://me:hunter2@[mail",
        "smtp://me:hunter2\u2100@mail.example",
    ],
)
def test_an_error_about_the_mail_server_shows_no_password(load, text):
    with pytest.raises(config.SettingError) as stopped:
        load(SMTP_URL=text, MAIL_FROM="a@b.de")

    assert str(stopped.value).startswith("SMTP_URL: ")
    assert "hunter2" not in str(stopped.value) and "\n" not in str(stopped.value)


def test_a_key_of_an_engine_may_stand_in_a_file(monkeypatch, tmp_path):
    file = tmp_path / "key"
    file.write_text("sk-123\n")
    monkeypatch.setenv("SOME_API_KEY_FILE", str(file))

    assert config.secret("SOME_API_KEY") == "sk-123"


@pytest.mark.parametrize(
    ("data", "others"),
    [(None, {}), (b"", {}), (b"\n", {}), (b"\xd5\xc5", {}), (b"x", {"SECRET_KEY": GOOD_KEY})],
)
def test_a_wrong_secret_file_stops_the_start_and_is_named(load, tmp_path, data, others):
    file = tmp_path / "secret"
    if data is not None:
        file.write_bytes(data)

    with pytest.raises(config.SettingError) as stopped:
        load(SECRET_KEY_FILE=str(file), **others)

    assert str(stopped.value).startswith("SECRET_KEY_FILE: ")
    assert "\n" not in str(stopped.value) and GOOD_KEY not in str(stopped.value)


@pytest.mark.parametrize("name", ["METRICS", "EMBED_METADATA", "AIGC_LABEL"])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("on", "true", "True", "TRUE", "yes", "1", " On ")),
        *((text, False) for text in ("off", "false", "False", "no", "NO", "0")),
    ],
)
def test_a_switch_takes_the_usual_words(load, name, text, value):
    assert getattr(load(**{name: text, "AIGC_PRODUCER": "me"}), name) is value


@pytest.mark.parametrize("text", ["maybe", "2", "onn", "-1"])
def test_a_switch_takes_no_other_word(load, text):
    with pytest.raises(config.SettingError) as stopped:
        load(METRICS=text)

    assert str(stopped.value) == "METRICS: must be on or off"


@pytest.mark.parametrize(
    ("text", "file"),
    [("on", str(config.COMMON_PASSWORDS)), ("true", str(config.COMMON_PASSWORDS)), ("off", "")],
)
def test_the_list_of_common_passwords_is_a_switch_or_a_file(load, tmp_path, text, file):
    own = tmp_path / "own.txt"
    own.write_text("hunter2\n")

    chosen = [load(PASSWORD_BLOCKLIST=one).PASSWORD_BLOCKLIST for one in (text, str(own))]

    assert chosen == [file, str(own)]


@pytest.mark.parametrize(
    ("text", "network"),
    [("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:10.1.2.3", "10.1.2.3/32"), ("::/0", "::/0")],
)
def test_networks_of_ipv4_addresses_may_be_written_as_ipv6(settings, text, network):
    assert [str(found) for found in config.networks(text)] == [network]


@pytest.mark.parametrize(
    "key",
    [
        "abc" * 20,
        "0123456789" * 4,
        "0123456789abcdef" * 2,
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "correcthorsebattery" * 3,
        "CorrectHorse" + "correcthorse" * 2 + "CORRECTHORSE",
        "mysite2024!mysite2025!mysite2026!mysite2027!",
        "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6",
        "abcdefghijklmnop" + "ponmlkjihgfedcba",
        "aaaabbbbccccddddeeeeffffgggghhhhiiiijjjj",
        "QwErTyUiOpAsDfGhJkLzXcVbNm1234567890",
        "please-replace-me-by-32-random-chars",
        "django-insecure-#x0k3!hv8w_2zqy9dtbn",
    ],
)
def test_a_key_with_a_pattern_is_weak(key):
    assert config.is_weak(key)


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_hex(16),
        lambda: secrets.token_hex(32),
        lambda: secrets.token_hex(64),
        lambda: secrets.token_urlsafe(24),
        lambda: secrets.token_urlsafe(32),
        lambda: base64.b64encode(secrets.token_bytes(48)).decode(),
        lambda: f"{uuid.uuid4()}",
        lambda: f"{uuid.uuid4()}{uuid.uuid4()}",
        lambda: uuid.uuid4().hex,
    ],
)
def test_random_keys_are_strong(make):
    assert not any(config.is_weak(make()) for _ in range(3000))


@pytest.mark.parametrize(("mode", "is_refused"), [(0o600, False), (0o640, False), (0o644, True)])
def test_production_refuses_an_env_file_that_everyone_can_read(
    settings, monkeypatch, tmp_path, mode, is_refused
):
    file = tmp_path / ".env"
    monkeypatch.setattr(config, "ENV_FILE", file)
    file.write_text("A=b")
    file.chmod(mode)
    environ = {"SECRET_KEY": secrets.token_hex(32), "DATABASE": "sqlite"}

    config.load({**environ, "FLASK_ENV": "development"})
    with pytest.raises(config.SettingError, match="chmod 600") if is_refused else nullcontext():
        config.load({**environ, "FLASK_ENV": "production"})


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("db", [("db", 3306)]),
        ("db1:3307, 10.0.0.2", [("db1", 3307), ("10.0.0.2", 3306)]),
        ("::1,[::1]:3307", [("::1", 3306), ("::1", 3307)]),
    ],
)
def test_the_hosts_of_a_cluster_may_have_ports(settings, text, addresses):
    settings.MYSQL_HOST = config.servers(text)

    assert settings.mysql_addresses == addresses
