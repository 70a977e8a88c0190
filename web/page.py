"""The reference client: the page in static/app/, which `npm run build` in frontend/ makes."""

import gzip
import re
from functools import lru_cache
from urllib.parse import urlsplit

from flask import Response, request, send_from_directory
from werkzeug.routing import BaseConverter

from config import HOST, settings
from web.docs import STATIC
from web.files import PUBLIC, conditional
from web.inputs import service_path

FOLDER = STATIC / "app"
TEXTS = (".js", ".css", ".svg")
# As bundlers name what never changes under its name.
HASHED = re.compile(r".+-[\w-]{8}\.\w+")
HTTP_ORIGIN = re.compile(rf"https?://({HOST})(:[0-9]{{1,5}})?", re.ASCII)
# Where AWS's buckets are.
AWS = "https://*.amazonaws.com"
# Scripts, styles and pictures are files of our own; what is written here alone is let in.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{api};"
    " img-src 'self' blob:{api}{buckets}; base-uri 'self'; form-action 'self';"
    " frame-ancestors 'none'"
)


class PageName(BaseConverter):
    """The addresses of the page's screens, which its own router tells apart."""

    regex = (
        "login|register|create|gallery|trash|shares|images/[0-9]{1,10}|account"
        "|reset-password|confirm-email"
        "|admin|admin/[a-z]{1,20}"
    )
    part_isolating = False


def app_page() -> Response:
    """Return the page, which finds its files and the API below the address of the service."""
    text = index().replace('<base href="/"', f'<base href="{service_path()}/"', 1)
    response = Response(text.replace("<html", f"<html {hints()}", 1), mimetype="text/html")
    response.headers["Content-Security-Policy"] = POLICY.format(api=other_api(), buckets=buckets())
    response.headers["Cache-Control"] = "no-cache"
    return response


def app_asset(filename: str) -> Response:
    """Return a file of the page."""
    response = conditional(lambda: send_from_directory(FOLDER / "assets", filename))
    response.headers["Cache-Control"] = PUBLIC if HASHED.fullmatch(filename) else "no-cache"
    if filename.endswith(TEXTS):
        compress(response, filename)
    return response


def compress(response: Response, filename: str) -> None:
    """Send the file by gzip if the client takes it; a third of the bytes, without nginx as well."""
    response.vary.add("Accept-Encoding")
    etag, _ = response.get_etag()
    if etag:
        response.set_etag(etag, weak=True)  # of both forms
    if response.status_code != 200 or not request.accept_encodings["gzip"]:
        return
    response.direct_passthrough = False
    response.set_data(zipped(filename))
    response.content_encoding = "gzip"
    del response.accept_ranges


@lru_cache(maxsize=200)
def zipped(filename: str) -> bytes:
    return gzip.compress((FOLDER / "assets" / filename).read_bytes(), mtime=0)


def hints() -> str:
    """Return what the page cannot ask the API, as attributes; none of their values needs quotes."""
    return (
        f"data-mode={settings.FLASK_ENV} data-registration={settings.REGISTRATION}"
        f" data-password-max={settings.PASSWORD_MAX_LENGTH}"
        f" data-mail={str(bool(settings.SMTP_URL)).lower()}"
        f" data-openid={str(bool(settings.OIDC_ISSUER)).lower()}"
    )


@lru_cache(maxsize=1)
def index() -> str:
    return (FOLDER / "index.html").read_text(encoding="utf-8")


def buckets() -> str:
    """Return the origins of the stores that pictures are had from, each with a blank before it."""
    if settings.SERVE_FROM != "store":
        return ""
    places = [settings.STORAGE_URL, settings.STORAGE_OTHER]
    endpoints = [
        dict(place.options).get("endpoint", AWS) for place in places if place and place.bucket
    ]
    parts = [urlsplit(endpoint) for endpoint in endpoints]
    return "".join(f" {one.scheme}://{one.netloc}" for one in parts)


def other_api() -> str:
    """Return the origin of another service that the page is tried against, with a blank.

    In production there is none: a link must not make our page send passwords elsewhere.
    """
    if settings.is_production:
        return ""
    try:
        parts = urlsplit(request.args.get("api", ""))
    except ValueError:
        return ""
    origin = f"{parts.scheme}://{parts.netloc}"
    return f" {origin}" if HTTP_ORIGIN.fullmatch(origin) else ""
