"""The addresses of the provider that oidc_provider.py starts."""

from django.contrib.auth import get_user_model, login
from django.http import HttpResponse
from django.urls import include, path
from oauth2_provider.oauth2_validators import OAuth2Validator

CLAIMS: dict[str, dict] = {}


class Validator(OAuth2Validator):
    oidc_claim_scope = None

    def get_additional_claims(self, request) -> dict:
        return CLAIMS[request.user.username]


def log_in(request) -> HttpResponse:
    claims = request.GET.dict()
    name = claims.pop("name")
    if "email_verified" in claims:
        claims["email_verified"] = claims["email_verified"] == "true"
    user, _ = get_user_model().objects.get_or_create(username=name)
    CLAIMS[name] = claims
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("")


urlpatterns = [path("login", log_in), path("o/", include("oauth2_provider.urls"))]
