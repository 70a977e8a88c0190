"""The documentation of the API: openapi.yaml as it is served, and the page that shows it."""

from pathlib import Path
from typing import Any

import flask_swagger_ui
from flask import Response, send_from_directory

from web.files import conditional
from web.inputs import service_url

STATIC = Path(__file__).parent.parent / "static"
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"
PAGE_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


def openapi_document() -> dict[str, Any]:
    # Imported late: most processes never serve the document.
    from web import openapi

    return openapi.document(service_url())


def docs_page() -> Response:
    """Return Swagger UI, from files on this machine alone."""
    response = conditional(lambda: send_from_directory(STATIC, "docs.html"))
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return response


def docs_asset(filename: str) -> Response:
    """Return a file of the page: our two lines of script, or one of Swagger UI's own."""
    folder = STATIC if filename == "docs.js" else SWAGGER_UI
    return conditional(lambda: send_from_directory(folder, filename, max_age=3600))
