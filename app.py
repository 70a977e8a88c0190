"""Every route of the service, in groups. A handler reads, calls one function, and answers.

What they have in common is in `web/`: hooks before and after each request, who may call, how
input is read and how answers look. What they do is in `accounts/` and `images/`.
"""

import logging.config
import time

from flask import Flask, Response, g, redirect

import commands
import config
import logs
import metrics
from accounts import api_keys, passwords, recovery, registration, sessions
from accounts import login as logins
from accounts.schemas import (
    ConfirmInput,
    EmailInput,
    KeyInput,
    LoginInput,
    LogoutInput,
    NewPasswordInput,
    RegisterInput,
    ResetInput,
)
from accounts.tokens import Session
from config import settings
from engines import catalog
from errors import ApiError
from images import COMPLETED, blocklist, gallery, queue, queue_status
from images import history as generations
from images import quota as quotas
from images.history import Generation
from images.schemas import (
    DeleteInput,
    DownloadQuery,
    FavoriteInput,
    FileQuery,
    GenerateInput,
    GenerateTestInput,
    HistoryQuery,
    IdsQuery,
    RetryInput,
)
from images.submit import submit
from web import docs as documentation
from web import files, hooks, records
from web.auth import file_owner_required, login_required, owner_required, token_required
from web.inputs import (
    client_address,
    idempotency_key,
    read_body,
    read_form,
    read_optional_body,
    read_query,
    service_path,
    user_agent,
)
from web.responses import language, success

VERSION = "1.0.0"

config.load()
logging.config.dictConfig(logs.dict_config())
# A wrong models file or list of words stops the start.
catalog.models()
blocklist.words()
passwords.is_common("")

app = Flask(__name__, static_folder=None)
hooks.init_app(app)
commands.register(app)

# -----------------------------------------------------------------------------------------------
# Health and documentation
# -----------------------------------------------------------------------------------------------


@app.get("/api/health")
def health():
    """Say that the process answers; touches nothing, so it holds while the database is down."""
    return {"message": "API服务运行正常", "status": "success", "version": VERSION}


@app.get("/api/health/ready")
def ready():
    """Say whether images can be made; 503 names what is unavailable."""
    state, problems = queue_status.readiness()
    wrong = {name: (problem, {}) for name, problem in state.items() if problem}
    if wrong:
        raise ApiError("not_ready", fields=wrong, retry_after=10)
    models = {name: problem or "ok" for name, problem in problems.items()}
    return success({**dict.fromkeys(state, "ok"), "models": models})


@app.get("/metrics")
def prometheus():
    """Show the numbers for Prometheus; 404 unless METRICS is on."""
    if not settings.METRICS:
        raise ApiError("not_found")
    text, content_type = metrics.page(queue.count_unfinished)
    return Response(text, content_type=content_type)


@app.get("/")
def home():
    """Lead a browser to the documentation."""
    return redirect(service_path() + "/api/docs")


@app.get("/api/openapi.json")
def openapi():
    """Serve the document of the API."""
    return documentation.openapi_document()


@app.get("/api/docs")
def docs():
    """Show the document of the API in Swagger UI."""
    return documentation.docs_page()


@app.get("/api/docs/<filename>")
def docs_asset(filename: str):
    """Serve a file of the documentation page."""
    return documentation.docs_asset(filename)


# -----------------------------------------------------------------------------------------------
# Accounts
# -----------------------------------------------------------------------------------------------


@app.post("/api/auth/register")
def register():
    """Open an account, with an avatar if one is sent.

    400 names each wrong field, 409 a name or email that is taken.
    """
    wanted, avatar = read_form(RegisterInput)
    user = registration.register(wanted, avatar, client_address(), language())
    return success({"avatarUrl": user["avatar_url"]}, "registered")


@app.post("/api/auth/login")
def login():
    """Exchange name and password for a token.

    401 for a wrong name or password alike, 429 after too many failures.
    """
    user = logins.log_in(read_body(LoginInput), client_address())
    token = sessions.open_session(user, client_address(), user_agent())
    return success({"token": token, "user": records.public_user(user)}, "logged_in")


@app.get("/api/auth/profile")
@login_required
def profile():
    """Show the caller's own account."""
    return success({"id": g.session.user_id, **records.public_profile(g.user)})


@app.post("/api/auth/password")
@login_required
def change_password():
    """Set a new password: every other session ends, and this one goes on with a new token."""
    wanted = read_body(NewPasswordInput)
    token = logins.change_password(g.session, wanted, client_address(), user_agent())
    return success({"token": token}, "password_changed")


@app.post("/api/auth/refresh")
@token_required
def refresh(session: Session):
    """Exchange a token for a fresh one of the same session."""
    return success({"token": sessions.refresh(session, client_address(), user_agent())})


@app.post("/api/auth/logout")
@login_required
def logout():
    """End this session, or all of the account's."""
    if read_optional_body(LogoutInput).everywhere:
        sessions.end_everywhere(g.session.user_id)
    else:
        sessions.end(g.session)
    return success(message="logged_out")


@app.get("/api/auth/sessions")
@login_required
def list_sessions():
    """List where the account is logged in."""
    found = sessions.list_open(g.session.user_id)
    return success({"sessions": [records.public_session(row) for row in found]})


@app.delete("/api/auth/sessions/<session_id>")
@login_required
def end_session(session_id: str):
    """End one session of the account."""
    if not sessions.end_one(g.session.user_id, session_id):
        raise ApiError("not_found")
    return success(message="session_ended")


@app.post("/api/v1/keys")
@login_required
def make_key():
    """Make an API key, which is shown only this once."""
    text, row = api_keys.make_key(g.session.user_id, **read_body(KeyInput).model_dump())
    return success({"key": text, **records.public_key(row)}, "key_made", status=201)


@app.get("/api/v1/keys")
@login_required
def list_keys():
    """List the API keys of the account, without what they are."""
    found = api_keys.list_keys(g.session.user_id)
    return success({"keys": [records.public_key(row) for row in found]})


@app.delete("/api/v1/keys/<key_id>")
@login_required
def revoke_key(key_id: str):
    """Revoke an API key; requests with it are refused from now on."""
    if not api_keys.revoke(g.session.user_id, key_id):
        raise ApiError("not_found")
    return success(message="key_revoked")


@app.post("/api/auth/reset/request")
def request_reset():
    """Have a code for a new password mailed; the answer is the same if nobody has the email."""
    email = read_body(EmailInput).email
    recovery.request_code("reset", email, client_address(), language())
    return success(message="code_requested")


@app.post("/api/auth/reset")
def reset():
    """Set a new password by a code, which ends every session."""
    recovery.reset_password(read_body(ResetInput), client_address())
    return success(message="password_reset")


@app.post("/api/auth/confirm/request")
def request_confirmation():
    """Have a code mailed once more to the email of an account that is not confirmed yet."""
    email = read_body(EmailInput).email
    recovery.request_code("confirm", email, client_address(), language())
    return success(message="code_requested")


@app.post("/api/auth/confirm")
def confirm():
    """Confirm an email by the code that was mailed to it."""
    recovery.confirm_email(read_body(ConfirmInput).code, client_address(), language())
    return success(message="email_confirmed")


# -----------------------------------------------------------------------------------------------
# Images
# -----------------------------------------------------------------------------------------------


@app.get("/api/v1/models")
def list_models():
    """List the models on offer: whether they are available, and what their parameters may be."""
    models = catalog.models().values()
    return success({"models": [records.public_model(model) for model in models]})


@app.post("/api/v1/images/generate-test")
@login_required
def generate_test():
    """Draw an image with the built-in engine while the caller waits."""
    generation = gallery.generate_test(g.session, read_body(GenerateTestInput), idempotency_key())
    if generation["status"] != COMPLETED:
        raise ApiError("generation_failed")
    url = generation["image_url"]
    return success({"id": generation["id"], "imageUrl": url, "status": COMPLETED}, "generated")


@app.post("/api/v1/images/generate")
@token_required
def generate(session: Session):
    """Queue generations for the caller; workers make them later.

    400 names each wrong field, 409 a key used for another request, 429 too many unfinished ones
    or a spent quota, 503 a full queue.
    """
    wanted = read_body(GenerateInput)
    return records.submitted(submit(session, wanted, idempotency_key()))


@app.get("/api/v1/images/<int:generation_id>")
@owner_required
def image(generation: Generation):
    """Show one generation."""
    [record] = records.public_records([generation])
    return records.watched([generation], record)


@app.get("/api/v1/images")
@login_required
def images():
    """Show up to 50 generations at once, for a page that watches several; others' are left out."""
    found = generations.list_owned(g.session.user_id, read_query(IdsQuery).ids)
    return records.watched(found, {"records": records.public_records(found)})


@app.post("/api/v1/images/<int:generation_id>/cancel")
@owner_required
def cancel(generation: Generation):
    """Cancel a generation that is not finished; 409 if it is."""
    canceled = gallery.cancel(g.session.user_id, generation)
    return records.one_record(canceled, "canceled")


@app.post("/api/v1/images/<int:generation_id>/retry")
@owner_required
def retry(generation: Generation):
    """Queue a new generation with the same parameters, and a new seed if asked for."""
    new_seed = read_optional_body(RetryInput).seed == "new"
    return records.submitted(gallery.retry(g.session, generation, new_seed, idempotency_key()))


@app.patch("/api/v1/images/<int:generation_id>")
@owner_required
def change_image(generation: Generation):
    """Mark a generation as a favorite, or no longer."""
    favorite = read_body(FavoriteInput).favorite
    return records.one_record(gallery.set_favorite(g.session.user_id, generation, favorite))


@app.delete("/api/v1/images/<int:generation_id>")
@owner_required
def delete_image(generation: Generation):
    """Delete a generation with its image and thumbnail."""
    deleted = gallery.delete(g.session.user_id, [generation["id"]])
    return success({"deleted": deleted}, "deleted")


@app.post("/api/v1/images/delete")
@login_required
def delete_images():
    """Delete up to 100 generations; says which there were."""
    deleted = gallery.delete(g.session.user_id, read_body(DeleteInput).ids)
    return success({"deleted": deleted}, "deleted")


@app.get("/api/v1/images/quota")
@login_required
def quota():
    """Show what is left of today's images, and how many more may be unfinished."""
    state = quotas.get_quota(g.session.user_id)
    midnight = time.gmtime(state["resets_at"])
    return success(
        {
            "limit": settings.DAILY_IMAGES,
            "used": state["used"],
            "remaining": max(0, settings.DAILY_IMAGES - state["used"]),
            "resetsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", midnight),
            "timezone": str(settings.QUOTA_TIMEZONE),
            "active": state["active"],
            "activeLimit": settings.MAX_ACTIVE_JOBS,
        }
    )


@app.get("/api/v1/images/history")
@token_required
def history(session: Session):
    """Show one page of the caller's generations, newest first, filtered if asked for."""
    query = read_query(HistoryQuery)
    found = generations.list_generations(
        session, query.per_page, query.offset, query.cursor, query.filters
    )
    page = records.history_page(found, query)
    return *success(page), records.next_link(page)


# -----------------------------------------------------------------------------------------------
# Files
# -----------------------------------------------------------------------------------------------


@app.get("/api/uploads/avatars/<filename>")
def avatar_file(filename: str):
    """Serve an avatar to anyone."""
    is_download = bool(read_query(DownloadQuery).download)
    return files.stored_file(f"avatars/{filename}", files.PUBLIC, is_download)


@app.get("/api/uploads/generated_images/<user_id>/<filename>")
@file_owner_required
def generated_file(user_id: str, filename: str):
    """Serve an image or thumbnail to its owner, or to whoever has a signed link of theirs.

    `?metadata=strip` leaves out prompt and parameters.
    """
    key = f"generated_images/{user_id}/{filename}"
    query = read_query(FileQuery)
    send = files.stripped_file if query.metadata else files.stored_file
    return send(key, files.private(), bool(query.download))
