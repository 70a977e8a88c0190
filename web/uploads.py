"""The routes of uploads: pictures that an account sends to have others made from them."""

from flask import Blueprint, g

from images import uploads
from images.schemas import DownloadQuery, UploadInput
from web import files, records
from web.auth import file_owner_required, login_required
from web.inputs import read_query, read_upload
from web.responses import success

routes = Blueprint("uploads", __name__)


@routes.post("/api/v1/uploads")
@login_required
def add_upload():
    """Take a picture; the same bytes again are the same upload.

    400 says what is wrong with it, 409 that the storage is full, 413 that it is too large.
    """
    upload = uploads.add(g.session, read_upload(UploadInput))
    return success(records.public_upload(upload), "uploaded", status=201)


@routes.get("/api/v1/uploads/<upload_id>")
@login_required
def show_upload(upload_id: str):
    """Show one of the caller's uploads."""
    return success(records.public_upload(uploads.find(g.session.user_id, upload_id)))


@routes.delete("/api/v1/uploads/<upload_id>")
@login_required
def delete_upload(upload_id: str):
    """Delete an upload; what was made from it stays."""
    uploads.delete(g.session.user_id, upload_id)
    return success(message="deleted")


@routes.get("/api/uploads/inputs/<user_id>/<filename>")
@file_owner_required
def input_file(user_id: str, filename: str):
    """Serve an upload or its thumbnail to its owner, or to whoever has a signed link of theirs."""
    key = f"inputs/{user_id}/{filename}"
    is_download = bool(read_query(DownloadQuery).download)
    return files.stored_file(key, files.private(), is_download)
