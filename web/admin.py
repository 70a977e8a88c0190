"""The admin API: `/api/v1/admin/…`, for accounts with the role `admin`, as their row says now.

Each handler reads, calls one function, which `flask …` calls too, and answers.
"""

from flask import Blueprint

from accounts import admin, audit, codes
from accounts.audit import Actor
from accounts.pages import all_rows
from accounts.schemas import InviteInput
from config import settings
from images import admin as jobs
from images import queue, queue_status, stats
from web import files
from web.admin_records import (
    audit_file,
    page,
    public_account,
    public_entry,
    public_image,
    public_invite,
    public_job,
    public_queue,
    public_worker,
)
from web.admin_schemas import (
    AdminImagesQuery,
    AuditQuery,
    InvitesQuery,
    JobsQuery,
    PauseInput,
    StatsQuery,
    UserChange,
    UsersQuery,
)
from web.auth import admin_required
from web.inputs import read_body, read_optional_body, read_query
from web.responses import success

routes = Blueprint("admin", __name__, url_prefix="/api/v1/admin")


# -- Accounts -----------------------------------------------------------------------------------


@routes.get("/users")
@admin_required
def list_users(actor: Actor):
    """List accounts, the newest first."""
    query = read_query(UsersQuery)
    return page("users", public_account, admin.list_users(query.filters, query.per_page))


@routes.get("/users/<int:user_id>")
@admin_required
def get_user(actor: Actor, user_id: int):
    """Show one account."""
    return success(public_account(admin.get_user(user_id)))


@routes.patch("/users/<int:user_id>")
@admin_required
def change_user(actor: Actor, user_id: int):
    """Close or open an account, or change its role."""
    user = admin.change_user(actor, user_id, read_body(UserChange).changes)
    queue.cancel_of_disabled()
    return success(public_account(user))


@routes.delete("/users/<int:user_id>")
@admin_required
def delete_user(actor: Actor, user_id: int):
    """Delete an account with all that belongs to it; there is no way back."""
    admin.delete_user(actor, user_id)
    return success({"id": user_id}, "deleted")


@routes.post("/users/<int:user_id>/reset-code")
@admin_required
def make_reset_code(actor: Actor, user_id: int):
    """Make a code for a new password, to hand on to whoever has forgotten theirs."""
    code = admin.make_reset_code(actor, user_id)
    return success({"code": code, "expiresInSeconds": codes.LIFETIMES[codes.HANDED]})


@routes.delete("/users/<int:user_id>/2fa")
@admin_required
def reset_second_factor(actor: Actor, user_id: int):
    """Take away the second factor of somebody who has lost it."""
    admin.reset_second_factor(actor, user_id)
    return success(public_account(admin.get_user(user_id)))


# -- Invites ------------------------------------------------------------------------------------


@routes.post("/invites")
@admin_required
def create_invite(actor: Actor):
    """Make an invite; its code is shown only now."""
    invite_id, code = admin.create_invite(actor, read_body(InviteInput))
    return success({"code": code, **public_invite(admin.get_invite(invite_id))})


@routes.get("/invites")
@admin_required
def list_invites(actor: Actor):
    """List invites, the newest first."""
    query = read_query(InvitesQuery)
    return page("invites", public_invite, admin.list_invites(query.filters, query.per_page))


@routes.delete("/invites/<int:invite_id>")
@admin_required
def revoke_invite(actor: Actor, invite_id: int):
    """Let nobody use an invite any more; accounts keep what it gave them."""
    admin.revoke_invite(actor, invite_id)
    return success(public_invite(admin.get_invite(invite_id)))


# -- Jobs ---------------------------------------------------------------------------------------


@routes.get("/jobs")
@admin_required
def list_jobs(actor: Actor):
    """List jobs of all accounts, the newest first, without their prompts."""
    query = read_query(JobsQuery)
    return page("jobs", public_job, jobs.list_jobs(query.filters, query.per_page))


@routes.post("/jobs/<int:job_id>/cancel")
@admin_required
def cancel_job(actor: Actor, job_id: int):
    """Cancel an unfinished job; 409 for a finished one."""
    jobs.cancel_job(actor, job_id)
    return success({"id": job_id}, "canceled")


@routes.post("/jobs/<int:job_id>/requeue")
@admin_required
def requeue_job(actor: Actor, job_id: int):
    """Put a failed or stuck job back into the queue; 409 for any other."""
    jobs.requeue_job(actor, job_id)
    return success({"id": job_id}, "requeued")


# -- Queue, workers and numbers -----------------------------------------------------------------


@routes.get("/queue")
@admin_required
def show_queue(actor: Actor):
    """Show what waits and runs of each model, and what is paused."""
    return success(public_queue())


@routes.post("/queue/pause")
@admin_required
def pause_queue(actor: Actor):
    """Let workers take no job of a model, or none at all; what they are making goes on."""
    jobs.pause(actor, read_optional_body(PauseInput).model)
    return success(public_queue())


@routes.post("/queue/resume")
@admin_required
def resume_queue(actor: Actor):
    """Undo a pause."""
    jobs.resume(actor, read_optional_body(PauseInput).model)
    return success(public_queue())


@routes.get("/workers")
@admin_required
def list_workers(actor: Actor):
    """List the worker processes that were seen within the last half a minute."""
    found = queue.list_live_workers(queue_status.LIVE_SECONDS)
    return success({"workers": [public_worker(row) for row in found]})


@routes.get("/stats")
@admin_required
def show_stats(actor: Actor):
    """Show accounts, images, bytes and jobs of each of the last days, as series to plot."""
    series = stats.series(read_query(StatsQuery).days)
    zone = str(settings.QUOTA_TIMEZONE)
    return success({"timezone": zone, "totals": stats.totals(), **series})


# -- Audit log and images -----------------------------------------------------------------------


@routes.get("/audit")
@admin_required
def list_audit(actor: Actor):
    """List who changed what, the newest first; as a file, all of it."""
    query = read_query(AuditQuery)
    if query.format != "json":
        return audit_file(all_rows(audit.list_entries, query.filters), query.format)
    return page("entries", public_entry, audit.list_entries(query.filters, query.per_page))


@routes.get("/images")
@admin_required
def list_images(actor: Actor):
    """List images of an account with their prompts; 403 unless ADMIN_SEES_IMAGES is on."""
    query = read_query(AdminImagesQuery)
    found = jobs.look_at_images(actor, query.user, query.cursor, query.per_page)
    return page("images", public_image, found)


@routes.get("/files/<int:user_id>/<filename>")
@admin_required
def get_file(actor: Actor, user_id: int, filename: str):
    """Serve an image or thumbnail of an account; 403 unless ADMIN_SEES_IMAGES is on."""
    jobs.look_at_file(actor, user_id, filename)
    return files.stored_file(f"generated_images/{user_id}/{filename}", files.UNCACHED)
