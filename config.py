"""Settings: the only reader of the environment and of `.env` (the environment wins).

`load()` fills the one `settings` object, which every module reads at the moment it needs a value.
A wrong value stops the start with one line that names the setting.
"""

import ipaddress
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, tzinfo
from importlib.util import find_spec
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dotenv
from dotenv.parser import Binding, parse_stream

HERE = Path(__file__).resolve().parent
# Scheme, `*.`, host, port. Apps have schemes of their own, such as capacitor://localhost.
HOST = r"(?!\.\w)[\w.-]+|\[[0-9a-f:.]+\]"
ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://(\*\.)?({HOST})(?::([0-9]{{0,5}}))?")
DEFAULT_PORTS = {"http": 80, "https": 443}
# What may follow the name of a bucket; the library that speaks to it says what each means.
BUCKET_OPTIONS = (
    "endpoint",
    "region",
    "virtual_hosted_style_request",
    "disable_bulk_delete",
    "server_side_encryption",
)
BROKER_PACKAGES = {"amqp": "celery", "amqps": "celery", "redis": "redis", "rediss": "redis"}
SMTP_PORTS = {"smtp": 587, "smtps": 465}
ENV_FILE = HERE / ".env"
COMMON_PASSWORDS = HERE / "accounts" / "common_passwords.txt"
DEVELOPMENT_ORIGINS = ["http://localhost:5173", "http://localhost:5174"]
KEY_ADVICE = "make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
# Settings that may stand in files of their own, which NAME_FILE names.
SECRETS = (
    "SECRET_KEY",
    "SECRET_KEY_PREVIOUS",
    "MYSQL_PASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "OIDC_CLIENT_SECRET",
    "SMTP_URL",
    "BROKER_URL",
)
ON = ("on", "true", "yes", "1")
OFF = ("off", "false", "no", "0")
PLACEHOLDERS = (
    *("secret", "change", "replace", "your_", "your-", "example", "default", "insecure"),
    *("password", "qwerty", "1qaz2wsx", "密钥", "替换"),
)


# os.EX_CONFIG, which Windows lacks: how a worker ends that finds a setting wrong.
WRONG_SETTING_STATUS = 78


class SmtpServer(NamedTuple):
    """Who takes the mail; `scheme` is smtp, which STARTTLS encrypts, or smtps."""

    scheme: str
    host: str
    port: int
    user: str
    password: str


class Location(NamedTuple):
    """Where files are: in a bucket of an S3-compatible store; without one, in uploads/."""

    bucket: str = ""
    prefix: str = ""
    options: tuple[tuple[str, str], ...] = ()


class SettingError(SystemExit):
    """A setting is wrong. Uncaught, it ends the process with its one line and exit status 1."""


# -- Files that people write ---------------------------------------------------------------------


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8, without the marks that Windows puts before one.

    Raises OSError, and ValueError for another encoding.
    """
    try:
        text = file.read_bytes().decode().replace("\ufeff", "")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # as in UTF-16
        raise ValueError("is not UTF-8; save it again in that encoding")
    return text


def dotenv_values(file: Path) -> dict[str, str]:
    """Return what `.env` sets; `${` in a value is no reference to a variable.

    Raises SettingError for a file, or a line of it, that cannot be read.
    """
    try:
        text = read_text(file) if file.exists() else ""
    except (OSError, ValueError) as error:
        raise SettingError(f"{file.name}: {error}") from None
    values = {}
    for found in parse_stream(StringIO(text)):
        if found.error or (found.key and found.value is None):
            raise SettingError(f"{file.name}: line {line_number(found)} is not NAME=value")
        if found.key:
            values[found.key] = found.value
    return values


def line_number(found: Binding) -> int:
    text = found.original.string
    blank_lines = text[: len(text) - len(text.lstrip())].count("\n")
    return found.original.line + blank_lines


def read_environment() -> dict[str, str]:
    """Return what `.env` and the process's environment set; the environment wins."""
    values = dotenv_values(ENV_FILE)
    # The command `flask` has put these lines there, too, with references replaced.
    replaced = dotenv.dotenv_values(ENV_FILE, encoding="utf-8-sig")
    for name, value in os.environ.items():
        if name not in values or value != replaced.get(name):
            values[name] = value
    return values


# -- How one value is read; each raises ValueError with what would be right ---------------------


def one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse


def number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            whole = "a whole" if kind is int else "a"
            raise ValueError(f"must be {whole} number from {low} to {high}")
        return value

    return parse


def origins(text: str) -> list[str]:
    return [origin(word) for word in words(text)]


def origin(text: str) -> str:
    """Return an origin as browsers send it; `*` for a whole host is any, before one sub-domains."""
    if text == "*":
        return text
    found = ORIGIN.fullmatch(text.rstrip("/").lower())
    if not found:
        raise ValueError(
            f"{text!r} is no origin; write them like"
            " https://example.com,https://*.example.com,http://localhost:5173"
        )
    scheme, subdomains, host, port = found.groups(default="")
    host = ascii_host(host)
    if port and int(port) != DEFAULT_PORTS.get(scheme):
        host += f":{int(port)}"
    return f"{scheme}://{subdomains}{host}"


def ascii_host(host: str) -> str:
    if host.startswith("["):
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    if host.isascii():
        return host
    # Imported late, as hardly anybody needs it.
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise ValueError(f"{host!r} is no host name") from None


def networks(text: str) -> list[Any]:
    try:
        return [network(address) for address in words(text)]
    except ValueError:
        raise ValueError("must be addresses or networks like 127.0.0.1,10.0.0.0/8") from None


def network(text: str) -> Any:
    """Return a network; one of IPv4 addresses written as IPv6 (::ffff:10.0.0.1) is one of IPv4."""
    found = ipaddress.ip_network(text, strict=False)
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped and found.prefixlen >= 96:
        return ipaddress.ip_network((mapped, found.prefixlen - 96))
    return found


def on_or_off(text: str) -> bool:
    if text.lower() not in ON + OFF:
        raise ValueError("must be on or off")
    return text.lower() in ON


def smtp_server(text: str) -> SmtpServer:
    try:
        parts = urlsplit(text)
        port = parts.port or SMTP_PORTS[parts.scheme]
    except (ValueError, LookupError):  # what they say would show the password
        parts = None
    if not parts or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(
            "must be like smtp://user:password@mail.example.com:587, or smtps://…;"
            " in user and password, characters such as / : @ # are written as %2F and so on"
        )
    user = unquote(parts.username or "")
    return SmtpServer(parts.scheme, parts.hostname, port, user, unquote(parts.password or ""))


def location(text: str) -> Location:
    """Read `disk`, or the address of a bucket. Raises ValueError, which shows nothing of it."""
    if text == "disk":
        return Location()
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = parts.path.strip("/")
    if "@" in text:
        raise ValueError("must hold no keys: they belong in AWS_ACCESS_KEY_ID and so on")
    is_bucket = re.fullmatch(r"[\w.-]{3,63}", parts.netloc, re.ASCII)
    is_prefix = re.fullmatch(r"([\w-][\w.-]*(/[\w-][\w.-]*)*)?", prefix, re.ASCII)
    if parts.scheme != "s3" or not is_bucket or not is_prefix or parts.fragment:
        raise ValueError(
            "must be disk, or like s3://bucket/prefix?endpoint=https://s3.example.com&region=…"
        )
    if unknown := options.keys() - set(BUCKET_OPTIONS):
        known = ", ".join(BUCKET_OPTIONS)
        raise ValueError(f"has ?{min(unknown)}=, which is none of {known}")
    if "endpoint" in options:
        options["endpoint"] = public_url(options["endpoint"])
    return Location(parts.netloc, prefix, tuple(sorted(options.items())))


def broker_address(text: str) -> str:
    parts = urlsplit(text)
    try:
        is_right = parts.scheme in BROKER_PACKAGES and parts.hostname and parts.port != 0
    except ValueError:  # of the port; what it says may show the password
        is_right = False
    if not is_right:
        raise ValueError(
            "must be like amqp://user:password@rabbit.example.com:5672/vhost, or amqps://…,"
            " redis://…, rediss://…; in user and password, characters such as / : @ # are"
            " written as %2F and so on"
        )
    return text


def mail_sender(text: str) -> str:
    # Imported late, as not everybody sends mail.
    from email.message import EmailMessage

    message = EmailMessage()
    message["From"] = text
    header = message["From"]
    found = [one.addr_spec for one in header.addresses if one.username and one.domain]
    if len(found) != 1 or header.defects or not found[0].isascii():
        raise ValueError("must be one address, like Studio <no-reply@example.com>")
    return text


def public_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be like https://studio.example.com")
    return text.rstrip("/")


def page(text: str) -> str:
    if not re.fullmatch(r"/[\x21-\x7e]*", text) or "{code}" not in text:
        raise ValueError(
            "must begin with / and have {code} in it, like /reset-password#code={code}"
        )
    return text


def words(text: str) -> list[str]:
    parts = re.split("[,，]", text)  # also the comma that Chinese keyboards write
    return [part.strip() for part in parts if part.strip()]


def servers(text: str) -> str:
    for word in words(text):
        host, port = server_address(word, 1)
        if not is_host(host) or not 1 <= port <= 65535:
            raise ValueError("must be hosts like db1.internal,db2.internal:3307,[fd00::1]:3306")
    return text


def is_host(text: str) -> bool:
    if ":" not in text:
        return re.fullmatch(r"[\w.-]+", text) is not None
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def server_address(text: str, port: int) -> tuple[str, int]:
    """Split host:port, where the port may be left out. Colons are part of an IPv6 address alone."""
    found = re.fullmatch(r"(\[.+\]|[^:]+):(\d+)", text)
    host = found[1] if found else text
    return host.strip("[]"), int(found[2]) if found else port


def path(text: str) -> Path:
    return (HERE / Path(text).expanduser()).resolve()


def url_prefix(text: str) -> str:
    return f"/{text.strip('/')}/"


def base_path(text: str) -> str:
    path = text.strip("/")
    names = path.split("/") if path else []
    if not all(re.fullmatch(r"(?!\.+$)[A-Za-z0-9._~-]+", name) for name in names):
        raise ValueError("must be a path like /imagegen, of letters, digits and . _ ~ -")
    return "".join(f"/{name}" for name in names)


def web_address(text: str) -> str:
    parts = urlsplit(text)
    is_plain = re.fullmatch(r"[^\s<>\"\\]{1,255}", text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise ValueError("must be an address like https://login.example.com")
    return text


def existing_file(text: str) -> str:
    if not Path(text).is_file():
        raise ValueError("must be the path of an existing file")
    return text


def time_zone(text: str) -> tzinfo:
    if text == "UTC":
        return UTC  # also where there are no data of time zones
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            "must be UTC or a time zone like Asia/Shanghai"
            " (on Windows, these need: pip install tzdata)"
        ) from None


def password_list(text: str) -> str:
    if text.lower() in OFF:
        return ""
    return str(COMMON_PASSWORDS) if text.lower() in ON else existing_file(text)


def label_text(text: str) -> str:
    # GB 45438-2025, annex E: no blank, no quote, no backslash, ASCII alone.
    if not re.fullmatch(r"[\x21\x23-\x5B\x5D-\x7E]{1,200}", text):
        raise ValueError(
            "must be ASCII without blanks, quotes and backslashes, such as a company code"
        )
    return text


def password_hash(text: str) -> str:
    if text.split(":")[0] not in ("scrypt", "pbkdf2"):
        raise ValueError("must be a Werkzeug method such as scrypt:32768:8:1")
    return text


def setting(default: Any, parse: Callable[[str], Any] = str) -> Any:
    return field(default_factory=lambda: default, metadata={"parse": parse})


# -- The settings, in the order of .env.example --------------------------------------------------


@dataclass
class Settings:
    FLASK_ENV: str = setting("development", one_of("development", "production"))
    SECRET_KEY: str = setting("")
    SECRET_KEY_PREVIOUS: str = setting("")
    CORS_ORIGINS: list = setting([], origins)

    DATABASE: str = setting("", one_of("sqlite", "mysql"))
    MYSQL_HOST: str = setting("", servers)
    MYSQL_PORT: int = setting(3306, number(int, 1, 65535))
    MYSQL_USER: str = setting("")
    MYSQL_PASSWORD: str = setting("")
    MYSQL_DB: str = setting("")
    MYSQL_SSL_CA: str = setting("", existing_file)
    DB_POOL_SIZE: int = setting(16, number(int, 1, 1000))
    DB_POOL_WAIT_SECONDS: float = setting(3.0, number(float, 0.05, 60))

    HOST: str = setting("127.0.0.1")
    PORT: int = setting(8000, number(int, 1, 65535))
    WEB_WORKERS: int = setting(0, number(int, 1, 64))
    WEB_THREADS: int = setting(64, number(int, 2, 1000))
    TRUSTED_PROXIES: list = setting([], networks)
    URL_PREFIX: str = setting("", base_path)
    X_ACCEL_PREFIX: str = setting("", url_prefix)
    DATA_DIR: Path = setting(HERE, path)
    STORAGE_URL: Location = setting(Location(), location)
    STORAGE_OTHER: Location | None = setting(None, location)
    AWS_ACCESS_KEY_ID: str = setting("")
    AWS_SECRET_ACCESS_KEY: str = setting("")
    SERVE_FROM: str = setting("store", one_of("store", "proxy"))
    METRICS: bool = setting(False, on_or_off)
    LOG_LEVEL: str = setting("info", one_of("debug", "info", "warning", "error"))

    MODELS_FILE: Path = setting(HERE / "models.toml", path)
    JOB_WORKERS: int = setting(1, number(int, 1, 64))
    WORKER_MODELS: list = setting([], words)
    WORKER_GRACE_SECONDS: int = setting(20, number(int, 0, 3600))
    BROKER_URL: str = setting("", broker_address)
    MAX_ACTIVE_JOBS: int = setting(20, number(int, 1, 10**6))
    DAILY_IMAGES: int = setting(500, number(int, 1, 10**9))
    SUBMITS_PER_MINUTE: int = setting(120, number(int, 1, 10**6))
    QUOTA_TIMEZONE: tzinfo = setting(UTC, time_zone)
    MAX_QUEUE: int = setting(1000, number(int, 1, 10**6))
    IMAGE_DAYS: int = setting(0, number(int, 0, 36500))
    TRASH_DAYS: int = setting(0, number(int, 0, 3650))
    MAX_STORAGE_MB: int = setting(0, number(int, 0, 10**9))
    PROMPT_BLOCKLIST: str = setting("", existing_file)
    MAX_RESULT_PIXELS: int = setting(100_000_000, number(int, 10**6, 178 * 10**6))
    EMBED_METADATA: bool = setting(True, on_or_off)
    AIGC_PRODUCER: str = setting("", label_text)
    AIGC_LABEL: bool | None = setting(None, on_or_off)
    ADMIN_SEES_IMAGES: bool = setting(False, on_or_off)

    TOKEN_HOURS: float = setting(24.0, number(float, 0.0001, 24 * 365))
    SESSION_DAYS: int = setting(90, number(int, 1, 3650))
    REGISTRATION: str = setting("open", one_of("open", "invite", "closed"))
    INVITE_FAILURES_PER_ADDRESS: int = setting(100, number(int, 1, 10**6))
    RESERVED_NAMES: list = setting([], words)
    PASSWORD_MAX_LENGTH: int = setting(20, number(int, 20, 1000))
    PASSWORD_BLOCKLIST: str = setting("", password_list)
    PASSWORD_HASH: str = setting("scrypt:32768:8:1", password_hash)
    LOGIN_FAILURES_PER_ACCOUNT: int = setting(10, number(int, 1, 10**6))
    LOGIN_FAILURES_PER_ADDRESS: int = setting(100, number(int, 1, 10**6))
    LOGIN_WINDOW_SECONDS: int = setting(600, number(int, 1, 86400))
    REQUIRE_2FA: str = setting("off", one_of("off", "admins"))
    OIDC_ISSUER: str = setting("", web_address)
    OIDC_CLIENT_ID: str = setting("")
    OIDC_CLIENT_SECRET: str = setting("")
    OIDC_LABEL: str = setting("OpenID")
    OIDC_RETURN_URL: str = setting("", web_address)
    REGISTRATIONS_PER_ADDRESS: int = setting(1000, number(int, 1, 10**6))
    TAKEN_NAMES_PER_ADDRESS: int = setting(100, number(int, 1, 10**6))
    UPLOADS_PER_ADDRESS: int = setting(1000, number(int, 1, 10**6))
    UPLOADS_PER_ACCOUNT: int = setting(100, number(int, 1, 10**6))
    CODES_PER_ACCOUNT: int = setting(5, number(int, 1, 10**6))
    CODES_PER_ADDRESS: int = setting(50, number(int, 1, 10**6))

    SMTP_URL: SmtpServer | None = setting(None, smtp_server)
    SMTP_REQUIRE_TLS: bool | None = setting(None, on_or_off)
    MAIL_FROM: str = setting("", mail_sender)
    PUBLIC_URL: str = setting("", public_url)
    RESET_PAGE: str = setting("/reset-password#code={code}", page)
    CONFIRM_PAGE: str = setting("/confirm-email#code={code}", page)
    REQUIRE_EMAIL: bool = setting(False, on_or_off)

    @property
    def is_production(self) -> bool:
        return self.FLASK_ENV == "production"

    @property
    def uses_mysql(self) -> bool:
        return bool(self.MYSQL_HOST)

    @property
    def mysql_addresses(self) -> list[tuple[str, int]]:
        return [server_address(word, self.MYSQL_PORT) for word in words(self.MYSQL_HOST)]

    @property
    def instance_dir(self) -> Path:
        return self.DATA_DIR / "instance"

    @property
    def uploads_dir(self) -> Path:
        return self.DATA_DIR / "uploads"


settings = Settings()


def secret(name: str) -> str:
    """Return a variable that the models file names, such as an API key; "" if it is not set."""
    return text_of(name, read_environment())


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Fill `settings` from `environ`, by default from `.env` and the process's environment.

    Raises SettingError naming the first setting that is wrong. An empty value counts as not set.
    """
    if environ is None:
        environ = read_environment()
    for item in fields(Settings):
        text = (environ.get(item.name) or "").strip()
        if item.name in SECRETS:
            text = text_of(item.name, environ)
        try:
            value = item.metadata["parse"](text) if text else item.default_factory()
        except ValueError as error:
            raise SettingError(f"{item.name}: {error}") from None
        setattr(settings, item.name, value)
    check_database()
    check_keys()
    check_label()
    check_oidc()
    check_mail()
    check_storage()
    check_broker()
    if settings.is_production:
        check_mode(ENV_FILE)
    if not settings.is_production and not environ.get("CORS_ORIGINS"):
        settings.CORS_ORIGINS = DEVELOPMENT_ORIGINS
    if not settings.WEB_WORKERS:
        # SQLite has one writer at a time, so a second process gains nothing there.
        settings.WEB_WORKERS = 2 if settings.uses_mysql else 1
    return settings


def text_of(name: str, environ: Mapping[str, str]) -> str:
    """Return a secret, which may stand in a file that NAME_FILE names. Raises SettingError."""
    text = (environ.get(name) or "").strip()
    file = (environ.get(f"{name}_FILE") or "").strip()
    if not file:
        return text
    if text:
        raise SettingError(f"{name}_FILE: must not be set beside {name}; remove one of the two")
    try:
        text = read_text(path(file)).strip()
    except (OSError, ValueError) as error:
        raise SettingError(f"{name}_FILE: {error}") from None
    if not text:
        raise SettingError(f"{name}_FILE: {file} is empty")
    return text


def check_database() -> None:
    if settings.DATABASE == "sqlite" and settings.MYSQL_HOST:
        raise SettingError("DATABASE: says sqlite while MYSQL_HOST is set; remove one of the two")
    if settings.DATABASE == "mysql" and not settings.MYSQL_HOST:
        raise SettingError("MYSQL_HOST: must be set when DATABASE is mysql")
    if settings.is_production and not settings.MYSQL_HOST and not settings.DATABASE:
        raise SettingError(
            "MYSQL_HOST: must be set in production (or DATABASE=sqlite, to use SQLite on purpose)"
        )
    if settings.MYSQL_HOST:
        for name in ("MYSQL_USER", "MYSQL_DB"):
            if not getattr(settings, name):
                raise SettingError(f"{name}: must be set when MYSQL_HOST is")


def check_label() -> None:
    if settings.AIGC_LABEL and not settings.AIGC_PRODUCER:
        raise SettingError("AIGC_PRODUCER: must be set when AIGC_LABEL is on")
    if settings.AIGC_LABEL is None:
        settings.AIGC_LABEL = bool(settings.AIGC_PRODUCER)


def check_storage() -> None:
    for name in ("STORAGE_URL", "STORAGE_OTHER"):
        place = getattr(settings, name)
        if not place or not place.bucket:
            continue
        if not find_spec("obstore"):
            raise SettingError(f"{name}: needs a package: pip install -r requirements-fleet.txt")
        if bool(settings.AWS_ACCESS_KEY_ID) != bool(settings.AWS_SECRET_ACCESS_KEY):
            raise SettingError("AWS_SECRET_ACCESS_KEY: must be set with AWS_ACCESS_KEY_ID")
    if settings.STORAGE_OTHER == settings.STORAGE_URL:
        raise SettingError("STORAGE_OTHER: must not be the same as STORAGE_URL")


def check_oidc() -> None:
    if not settings.OIDC_ISSUER:
        return
    for name in ("OIDC_CLIENT_ID", "OIDC_RETURN_URL"):
        if not getattr(settings, name):
            raise SettingError(f"{name}: must be set when OIDC_ISSUER is")
    issuer = urlsplit(settings.OIDC_ISSUER)
    if issuer.scheme != "https" and issuer.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise SettingError("OIDC_ISSUER: must begin with https://, unless it is on this machine")
    if not find_spec("authlib"):
        raise SettingError("OIDC_ISSUER: needs a package: pip install -r requirements-oidc.txt")


def check_mail() -> None:
    if settings.REQUIRE_EMAIL and not settings.SMTP_URL:
        raise SettingError("SMTP_URL: must be set when REQUIRE_EMAIL is on")
    if settings.SMTP_URL and not settings.MAIL_FROM:
        raise SettingError("MAIL_FROM: must be set when SMTP_URL is")
    if settings.SMTP_REQUIRE_TLS is None:
        settings.SMTP_REQUIRE_TLS = settings.is_production


def check_broker() -> None:
    scheme = settings.BROKER_URL.partition(":")[0]
    needed = {"celery", BROKER_PACKAGES[scheme]} if scheme else set()
    if not all(find_spec(name) for name in needed):
        raise SettingError("BROKER_URL: needs packages: pip install -r requirements-fleet.txt")


def check_keys() -> None:
    """Refuse a missing or weak key in production; make one in development."""
    if not settings.is_production:
        settings.SECRET_KEY = settings.SECRET_KEY or development_key()
        return
    if not settings.SECRET_KEY:
        raise SettingError(f"SECRET_KEY: must be set in production; {KEY_ADVICE}")
    for name in ("SECRET_KEY", "SECRET_KEY_PREVIOUS"):
        if is_weak(getattr(settings, name)):
            raise SettingError(
                f"{name}: too weak for production (32 random characters or more); {KEY_ADVICE}"
            )


def is_weak(key: str) -> bool:
    """Tell if a key is short, uniform, patterned, or an example's placeholder; "" is no key."""
    if not key:
        return False
    is_placeholder = any(word in key.lower() for word in PLACEHOLDERS)
    is_uniform = len(set(key)) < 8 or has_pattern(key)
    return is_placeholder or len(key.encode()) < 32 or is_uniform


def has_pattern(key: str) -> bool:
    """Tell if parts of a key, or steps from one character to the next, come again and again.

    64 characters are enough to judge by. The limits are far from what random keys have: of 200,000
    of each usual form none was refused.
    """
    codes = [ord(character) for character in key[:64].lower()]
    steps = [second - first for first, second in pairwise(codes)]
    parts = set(zip(codes, codes[1:], codes[2:], strict=False))
    pairs = set(pairwise(steps))
    return len(parts) < (len(codes) - 2) * 0.75 or len(pairs) < (len(codes) - 2) * 0.6


def check_mode(file: Path) -> None:
    """Refuse a file with secrets that everyone on this machine can read or change."""
    is_posix = hasattr(os, "getuid")  # elsewhere the mode says nothing
    if is_posix and file.exists() and file.stat().st_mode & 0o007:
        raise SettingError(f"{file.name}: everyone on this machine can read it; chmod 600 {file}")


def development_key() -> str:
    """Return the key kept in instance/, made at the first start, by whichever process is first."""
    file = settings.instance_dir / "secret_key"
    if file.exists():
        return file.read_text().strip()
    settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f"secret_key.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_hex(32))
    try:
        # Unlike a rename, this never replaces the key that another process just made.
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return file.read_text().strip()
