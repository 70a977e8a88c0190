import os
import stat
import subprocess
import sys
from dataclasses import fields

import pytest

import config
from tests.servers import ROOT, clean_environment

GOOD_KEY = "0123456789abcdef0123456789abcdef"
PRODUCTION = {"FLASK_ENV": "production", "SECRET_KEY": GOOD_KEY, "DATABASE": "sqlite"}
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
        ({"DATABASE": "postgres"}, "DATABASE"),
        ({"DATABASE": "mysql"}, "MYSQL_HOST"),
        ({"DATABASE": "sqlite", **MYSQL}, "DATABASE"),
        ({"MYSQL_HOST": "db", "MYSQL_DB": "d"}, "MYSQL_USER"),
        ({"MYSQL_HOST": "db", "MYSQL_USER": "u"}, "MYSQL_DB"),
        ({**MYSQL, "MYSQL_SSL_CA": "/no/such/file"}, "MYSQL_SSL_CA"),
        ({"PASSWORD_HASH": "md5"}, "PASSWORD_HASH"),
        ({"WEB_WORKERS": "-1"}, "WEB_WORKERS"),
        ({"SUBMITS_PER_MINUTE": "0"}, "SUBMITS_PER_MINUTE"),
        *[({"QUOTA_TIMEZONE": name}, "QUOTA_TIMEZONE") for name in ("UTC+8", "Asia", "../x", "\0")],
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
