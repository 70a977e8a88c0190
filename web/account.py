"""What users do with their own account beyond registering and logging in.

Each handler reads, calls one function, and answers.
"""

from flask import Blueprint, g

from accounts import (
    api_keys,
    identities,
    invites,
    oidc,
    recovery,
    second_factor,
    sessions,
)
from accounts import login as logins
from accounts import profile as own_account
from accounts.schemas import (
    CodeInput,
    ConfirmInput,
    EmailInput,
    KeyInput,
    LinkInput,
    LogoutInput,
    NewPasswordInput,
    OidcQuery,
    OidcTokenInput,
    OwnPasswordInput,
    PasswordAndCodeInput,
    ProfileInput,
    RedeemInput,
    ResetInput,
)
from accounts.tokens import Session
from accounts.users import Account
from config import settings
from errors import ApiError
from web import oidc as openid_pages
from web import records
from web.auth import login_required, token_required
from web.inputs import (
    client_address,
    read_body,
    read_changes,
    read_optional_body,
    read_query,
    user_agent,
)
from web.responses import language, success

routes = Blueprint("account", __name__)


def logged_in(user: Account) -> tuple[dict, int]:
    token = sessions.open_session(user, client_address(), user_agent())
    g.user_id = user["id"]
    return success({"token": token, "user": records.public_user(user)}, "logged_in")


# -- The password and sessions -------------------------------------------------------------------


@routes.post("/api/auth/password")
@login_required
def change_password():
    """Set a new password: every other session ends, and this one goes on with a new token."""
    wanted = read_body(NewPasswordInput)
    token = logins.change_password(g.session, wanted, client_address(), user_agent())
    return success({"token": token}, "password_changed")


@routes.post("/api/auth/refresh")
@token_required
def refresh(session: Session):
    """Exchange a token for a fresh one of the same session."""
    return success({"token": sessions.refresh(session, client_address(), user_agent())})


@routes.post("/api/auth/logout")
@login_required
def logout():
    """End this session, or all of the account's."""
    if read_optional_body(LogoutInput).everywhere:
        sessions.end_everywhere(g.session.user_id)
    else:
        sessions.end(g.session)
    return success(message="logged_out")


@routes.get("/api/auth/sessions")
@login_required
def list_sessions():
    """List where the account is logged in."""
    found = sessions.list_open(g.session.user_id)
    return success({"sessions": [records.public_session(row) for row in found]})


@routes.delete("/api/auth/sessions/<session_id>")
@login_required
def end_session(session_id: str):
    """End one session of the account."""
    if not sessions.end_one(g.session.user_id, session_id):
        raise ApiError("not_found")
    return success(message="session_ended")


# -- API keys ------------------------------------------------------------------------------------


@routes.post("/api/v1/keys")
@login_required
def make_key():
    """Make an API key, which is shown only this once."""
    text, row = own_account.make_key(g.session, read_body(KeyInput))
    return success({"key": text, **records.public_key(row)}, "key_made", status=201)


@routes.get("/api/v1/keys")
@login_required
def list_keys():
    """List the API keys of the account, without what they are."""
    found = api_keys.list_keys(g.session.user_id)
    return success({"keys": [records.public_key(row) for row in found]})


@routes.delete("/api/v1/keys/<key_id>")
@login_required
def revoke_key(key_id: str):
    """Revoke an API key; requests with it are refused from now on."""
    if not api_keys.revoke(g.session.user_id, key_id):
        raise ApiError("not_found")
    return success(message="key_revoked")


# -- Profile and account -------------------------------------------------------------------------


@routes.patch("/api/auth/profile")
@login_required
def change_profile():
    """Change the caller's email, for which the password is asked, or avatar.

    409 for an email that is taken, 429 after too many wrong passwords.
    """
    wanted, avatar = read_changes(ProfileInput)
    changed, is_mailed = own_account.change(g.session, wanted, avatar, client_address(), language())
    data = {"id": g.session.user_id, **records.public_profile(changed)}
    return success(data, "email_requested" if is_mailed else "profile_changed")


@routes.delete("/api/auth/account")
@login_required
def delete_account():
    """Delete the caller's account with all that is in it, if the password is right."""
    password = read_body(OwnPasswordInput).password
    is_complete = own_account.delete(g.session, password, client_address())
    return success({"complete": is_complete}, "account_deleted")


# -- The second factor ---------------------------------------------------------------------------


@routes.get("/api/auth/2fa")
@login_required
def second_factor_state():
    """Show whether the caller has a second factor, and how many recovery codes are left."""
    return success(records.public_second_factor(second_factor.get_state(g.session.user_id)))


@routes.post("/api/auth/2fa")
@login_required
def set_up_second_factor():
    """Make a secret for an authenticator app; it counts once a code of it is confirmed."""
    wanted = read_body(OwnPasswordInput)
    logins.confirm_password(g.session.user_id, wanted.password, client_address())
    return success(second_factor.set_up(g.session.user_id, g.user["username"]))


@routes.post("/api/auth/2fa/confirm")
@login_required
def confirm_second_factor():
    """Turn the second factor on, which ends other sessions, and show its recovery codes, once."""
    code = read_body(CodeInput).code
    codes = second_factor.turn_on(g.session, code, client_address())
    return success({"recoveryCodes": codes, "token": renewed_token()}, "second_factor_on")


@routes.post("/api/auth/2fa/recovery-codes")
@login_required
def renew_recovery_codes():
    """Make ten new recovery codes; those of before are void."""
    confirm_both_factors()
    return success({"recoveryCodes": second_factor.renew_recovery_codes(g.session)})


@routes.delete("/api/auth/2fa")
@login_required
def remove_second_factor():
    """Take the second factor away, which ends other sessions."""
    confirm_both_factors()
    second_factor.turn_off(g.session)
    return success({"token": renewed_token()}, "second_factor_off")


def confirm_both_factors() -> None:
    wanted = read_body(PasswordAndCodeInput)
    logins.confirm_password(g.session.user_id, wanted.password, client_address())
    second_factor.confirm_code(g.session.user_id, wanted.code, client_address())


def renewed_token() -> str:
    return sessions.renew(g.session, client_address(), user_agent())


# -- Log-in at an OpenID provider ----------------------------------------------------------------


@routes.get("/api/auth/oidc")
def openid():
    """Say what the button that leads to the OpenID provider says; 404 where there is none."""
    oidc.require_provider()
    return success({"label": settings.OIDC_LABEL})


@routes.get("/api/auth/oidc/login")
def openid_login():
    """Lead the browser to the OpenID provider."""
    oidc.require_provider()
    return openid_pages.to_provider(read_query(OidcQuery).challenge)


@routes.get("/api/auth/oidc/callback")
def openid_callback():
    """Lead the browser from the provider on to the front end, with a code for a log-in."""
    oidc.require_provider()
    return openid_pages.back_from_provider()


@routes.post("/api/auth/oidc/token")
def openid_token():
    """Exchange such a code for a token; the first time, this opens an account."""
    wanted = read_body(OidcTokenInput)
    oidc.require_provider()
    return logged_in(oidc.log_in(wanted, client_address()))


@routes.get("/api/auth/oidc/link")
@login_required
def openid_links():
    """List who may log in as the caller from an OpenID provider."""
    return success(records.public_identities(identities.list_of(g.session.user_id)))


@routes.post("/api/auth/oidc/link")
@login_required
def link_openid():
    """Let whoever such a code stands for log in as the caller from now on."""
    wanted = read_body(LinkInput)
    oidc.require_provider()
    logins.confirm_password(g.session.user_id, wanted.password, client_address())
    oidc.link(g.session, wanted)
    return success(records.public_identities(identities.list_of(g.session.user_id)))


@routes.delete("/api/auth/oidc/link")
@login_required
def unlink_openid():
    """Let nobody log in as the caller from an OpenID provider any more."""
    password = read_body(OwnPasswordInput).password
    logins.confirm_password(g.session.user_id, password, client_address())
    identities.delete_of(g.session.user_id)
    return success(records.public_identities([]))


# -- Codes by mail -------------------------------------------------------------------------------


@routes.post("/api/auth/reset/request")
def request_reset():
    """Have a code for a new password mailed; the answer is the same if nobody has the email."""
    email = read_body(EmailInput).email
    recovery.request_code("reset", email, client_address(), language())
    return success(message="code_requested")


@routes.post("/api/auth/reset")
def reset():
    """Set a new password by a code, which ends every session."""
    recovery.reset_password(read_body(ResetInput), client_address())
    return success(message="password_reset")


@routes.post("/api/auth/confirm/request")
def request_confirmation():
    """Have a code mailed once more to the email of an account that is not confirmed yet."""
    email = read_body(EmailInput).email
    recovery.request_code("confirm", email, client_address(), language())
    return success(message="code_requested")


@routes.post("/api/auth/confirm")
def confirm():
    """Confirm an email by the code that was mailed to it."""
    recovery.confirm_email(read_body(ConfirmInput).code, client_address(), language())
    return success(message="email_confirmed")


# -- Invites -------------------------------------------------------------------------------------


@routes.post("/api/auth/redeem")
@login_required
def redeem():
    """Enter an invite code for the limits that it gives; 404, 409 or 410 if it gives none."""
    code = read_body(RedeemInput).code
    account = invites.redeem(g.session, code, client_address())
    return success({"limits": records.public_limits(account)}, "redeemed")
