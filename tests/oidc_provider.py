"""An OpenID provider for the tests: Django OAuth Toolkit, which insists on PKCE, in a process.

    python -m tests.oidc_provider PORT FOLDER REDIRECT_URI

Its one client is CLIENT. `/login?name=…` logs the browser in as a user of that name; the rest of
the query are claims about the user.
"""

import json
import sys
from pathlib import Path

CLIENT = {"id": "image-generator", "secret": "a secret of the tests & more"}


def configure(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from django.conf import settings

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    settings.configure(
        SECRET_KEY="of a provider that lives for one test",
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "provider.sqlite"}
        },
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "oauth2_provider",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF="tests.oidc_provider_urls",
        TEMPLATES=[
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
        ],
        LOGIN_URL="/login",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # the others are slow
        USE_TZ=True,
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_RSA_PRIVATE_KEY": pem.decode(),
            "PKCE_REQUIRED": True,
            "SCOPES": {"openid": "", "profile": "", "email": ""},
            "OAUTH2_VALIDATOR_CLASS": "tests.oidc_provider_urls.Validator",
        },
    )


def main(port: str, folder: str, redirect_uri: str) -> None:
    configure(Path(folder))
    import django
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from werkzeug.serving import run_simple

    django.setup()
    call_command("migrate", verbosity=0)
    from oauth2_provider.models import Application

    Application.objects.create(
        client_id=CLIENT["id"],
        client_secret=CLIENT["secret"],
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris=redirect_uri,
        algorithm="RS256",
        skip_authorization=True,
    )
    print(json.dumps({"port": port}), flush=True)
    run_simple("127.0.0.1", int(port), get_wsgi_application(), threaded=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
