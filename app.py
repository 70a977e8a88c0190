"""The routes of the service, in groups. A handler reads, calls one function, and answers.

Those of one's own account, beyond registering and logging in, stand in `web/account.py`, those of
uploads in `web/uploads.py`, and those of the admin API in `web/admin.py`.

What they have in common is in `web/`: hooks before and after each request, who may call, how
input is read and how answers look. What they do is in `accounts/` and `images/`.
"""

import logging.config

from flask import Flask, Response, g

import commands
import config
import logs
import metrics
from accounts import login as logins
from accounts import mails, passwords, registration
from accounts.schemas import LoginInput, RegisterInput
from accounts.tokens import Session
from config import settings
from engines import catalog
from errors import ApiError
from images import (
    COMPLETED,
    archive,
    archive_links,
    blocklist,
    broker,
    gallery,
    queue,
    queue_status,
    shares,
    tags,
    trash,
)
from images import history as generations
from images import quota as quotas
from images.history import Generation
from images.schemas import (
    MAX_ID,
    ArchiveInput,
    DeleteInput,
    DeleteQuery,
    DownloadQuery,
    FavoriteInput,
    FileQuery,
    GenerateInput,
    GenerateTestInput,
    HistoryQuery,
    IdsQuery,
    LinkQuery,
    RestoreInput,
    RetryInput,
    ShareInput,
    TagsInput,
    TrashQuery,
)
from images.submit import submit
from web import account as account_api
from web import admin as admin_api
from web import docs as documentation
from web import files, hooks, page, records
from web import uploads as uploads_api
from web.auth import file_owner_required, login_required, owner_required, token_required
from web.inputs import (
    client_address,
    idempotency_key,
    read_body,
    read_form,
    read_optional_body,
    read_query,
)
from web.responses import language, success

VERSION = "1.0.0"

config.load()
logging.config.dictConfig(logs.dict_config())
# A wrong models file or list of words stops the start.
catalog.models()
blocklist.words()
passwords.is_common("")

mails.on_added = broker.wake_mail

app = Flask(__name__, static_folder=None)
hooks.init_app(app)
commands.register(app)
app.register_blueprint(account_api.routes)
app.register_blueprint(admin_api.routes)
app.register_blueprint(uploads_api.routes)

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
    fine = ("", queue_status.PAUSED)
    wrong = {name: (problem, {}) for name, problem in state.items() if problem not in fine}
    wrong.pop("broker", None)  # workers then take turns to look for jobs
    if wrong:
        raise ApiError("not_ready", fields=wrong, retry_after=10)
    shown = {name: problem or "ok" for name, problem in state.items()}
    models = {name: problem or "ok" for name, problem in problems.items()}
    return success({**shown, "models": models})


@app.get("/metrics")
def prometheus():
    """Show the numbers for Prometheus; 404 unless METRICS is on."""
    if not settings.METRICS:
        raise ApiError("not_found")
    text, content_type = metrics.page(queue.count_unfinished, broker.is_up())
    return Response(text, content_type=content_type)


@app.get("/")
@app.get("/<page:screen>")
def home(screen: str = ""):
    """Show the page that is the reference client; its screens have addresses of their own."""
    return page.app_page()


@app.get("/assets/<filename>")
def page_asset(filename: str):
    """Serve a file of that page."""
    return page.app_asset(filename)


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

    400 names each wrong field, 403 says who may, 409 a name, email or code that is taken.
    """
    wanted, avatar = read_form(RegisterInput)
    registration.check_admission(wanted, client_address())
    user = registration.register(wanted, avatar, client_address(), language())
    return success({"avatarUrl": records.located(user["avatar_url"])}, "registered")


@app.post("/api/auth/login")
def login():
    """Exchange name and password for a token.

    401 for a wrong name or password alike, 429 after too many failures.
    """
    return account_api.logged_in(logins.log_in(read_body(LoginInput), client_address()))


@app.get("/api/auth/profile")
@login_required
def profile():
    """Show the caller's own account."""
    return success({"id": g.session.user_id, **records.public_profile(g.user)})


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
    url = records.located(generation["image_url"])
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
@login_required
def delete_image(generation_id: int):
    """Delete a generation with its image and thumbnail, into the trash if there is one."""
    purge = read_query(DeleteQuery).purge
    deleted = gallery.delete_one(g.session.user_id, generation_id, purge)
    return success({"deleted": deleted}, "deleted")


@app.post("/api/v1/images/delete")
@login_required
def delete_images():
    """Delete up to 100 generations; says which there were."""
    purge = read_query(DeleteQuery).purge
    deleted = gallery.delete(g.session.user_id, read_body(DeleteInput).ids, purge)
    return success({"deleted": deleted}, "deleted")


@app.get("/api/v1/images/trash")
@login_required
def list_trash():
    """Show what is in the caller's trash, from what came last, and when it is purged."""
    query = read_query(TrashQuery)
    user_id = g.session.user_id
    rows = trash.list_trash(user_id, query.per_page, query.cursor)
    return success(records.trash_page(rows, trash.count_trash(user_id), query))


@app.post("/api/v1/images/restore")
@login_required
def restore_images():
    """Put up to 100 generations from the trash back into the history; says which there were."""
    restored = trash.restore(g.session.user_id, read_body(RestoreInput).ids)
    return success({"restored": restored}, "restored")


@app.get("/api/v1/images/quota")
@login_required
def quota():
    """Show what is left of today's images, and how many more may be unfinished."""
    return success(records.public_quota(quotas.get_quota(g.session.user_id)))


@app.get("/api/v1/images/history")
@token_required
def history(session: Session):
    """Show one page of the caller's generations, newest first, filtered if asked for."""
    query = read_query(HistoryQuery, repeated=("tag",))
    found = generations.list_generations(
        session, query.per_page, query.offset, query.cursor, query.filters
    )
    page = records.history_page(found, query)
    return *success(page), records.next_link(page)


@app.post("/api/v1/images/tags")
@login_required
def change_tags():
    """Add tags to up to 100 generations, and remove others; says which there were."""
    wanted = read_body(TagsInput)
    changed = tags.change(g.session.user_id, wanted.ids, wanted.add, wanted.remove)
    return success({"images": changed}, "changed")


@app.get("/api/v1/tags")
@login_required
def list_tags():
    """List the caller's tags, the most used first."""
    return success({"tags": tags.list_tags(g.session.user_id)})


# -----------------------------------------------------------------------------------------------
# Images taken out
# -----------------------------------------------------------------------------------------------


@app.post("/api/v1/images/archive")
@login_required
def archive_images():
    """Send a ZIP file of the caller's images, or with `link` an address to fetch it from.

    409 if there are none, 413 if there are too many, 429 for too many archives at a time.
    """
    wanted = read_body(ArchiveInput)
    selection = archive.select(g.session.user_id, wanted)
    if not wanted.link:
        return files.archive_file(g.session, selection)
    token, expires_at = archive_links.create_link(g.session, selection)
    link = records.archive_link(token, expires_at, len(selection["ids"]))
    return success(link, status=201)


@app.get("/api/v1/images/archive")
def fetch_archive():
    """Send a ZIP file to whoever has its link, since a browser's download sends no token."""
    g.session, selection = archive_links.read_link(read_query(LinkQuery).ticket)
    return files.archive_file(g.session, selection)


@app.post("/api/v1/images/<int:generation_id>/share")
@owner_required
def share_image(generation: Generation):
    """Make a link by which anybody sees the image, without prompt and owner."""
    days = read_optional_body(ShareInput).days
    share, token = shares.create_share(g.session, generation["id"], days)
    return success(records.public_share(share, token), "shared", status=201)


@app.get("/api/v1/shares")
@login_required
def list_shares():
    """List the caller's links that have not ended."""
    found = shares.list_shares(g.session.user_id)
    return success({"shares": [records.public_share(share) for share in found]})


@app.delete("/api/v1/shares/<int:share_id>")
@login_required
def delete_share(share_id: int):
    """End a link of the caller's."""
    if not shares.delete_share(g.session.user_id, min(share_id, MAX_ID)):
        raise ApiError("not_found")
    return success(message="deleted")


@app.get("/api/s/<token>")
def shared_image(token: str):
    """Show a shared image to anybody."""
    return files.shared_file(token, bool(read_query(DownloadQuery).download))


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
