"""Log-in at an OpenID provider as a browser sees it: there and back, by redirects and one cookie.

It leads only to the provider and to OIDC_RETURN_URL, whatever a request says. The cookie ties the
way back to the browser that began, so that nobody can be made to finish somebody else's log-in.
"""

from urllib.parse import urlencode, urlsplit

from flask import Response, redirect, request

from accounts import oidc
from config import settings
from errors import ApiError
from web.inputs import client_address, service_path, service_url

COOKIE = "openid"
PATH = "/api/auth/oidc"


def to_provider(challenge: str) -> Response:
    redirect_uri = f"{service_url()}{PATH}/callback"
    try:
        url, sealed = oidc.begin(challenge, redirect_uri, client_address())
    except ApiError as error:
        return to_front_end(error=error.code)
    response = redirect(url)
    response.set_cookie(COOKIE, sealed, max_age=oidc.STATE_SECONDS, **cookie_options())
    return response


def back_from_provider() -> Response:
    cookie = request.cookies.get(COOKIE, "")
    try:
        code = oidc.finish(cookie, request.args.to_dict(), client_address())
    except ApiError as error:
        response = to_front_end(error=error.code)
    else:
        response = to_front_end(loginCode=code)
    response.delete_cookie(COOKIE, **cookie_options())
    return response


def cookie_options() -> dict[str, str | bool]:
    is_https = service_url().startswith("https:")
    path = f"{service_path()}{PATH}"
    # Lax: the way back is a link from the provider's site.
    return {"path": path, "secure": is_https, "httponly": True, "samesite": "Lax"}


def to_front_end(**query: str) -> Response:
    page = urlsplit(settings.OIDC_RETURN_URL)
    queries = [page.query, urlencode(query)]
    return redirect(page._replace(query="&".join(filter(None, queries))).geturl())
