"""What the admin API shows of accounts, jobs, the queue and the audit log."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Response

import db
from accounts import admin, invites
from accounts.pages import Page
from engines import catalog
from images import parameters, queue, queue_status
from images.history import Generation
from web.records import (
    error_message,
    iso_seconds,
    iso_time,
    located,
    public_limits,
    shown_number,
    shown_status,
    shown_text,
)
from web.responses import success

ENTRY_FIELDS = (
    "id", "at", "actorId", "actor", "address", "action", "targetKind", "targetId", "target",
    "before", "after",
)  # fmt: skip
# What spreadsheets take for the beginning of a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def page(name: str, show: Callable[[db.Row], dict], found: Page) -> tuple[dict, int]:
    """Answer with a page of a list, and the cursor of the next page if there may be one."""
    rows, cursor = found
    next_cursor = str(cursor) if cursor else None
    return success({name: [show(row) for row in rows], "nextCursor": next_cursor})


def public_account(user: db.Row) -> dict[str, Any]:
    return {
        "id": user["id"],
        "username": shown_text(user["username"]),
        "email": shown_text(user["email"]),
        "role": user["role"],
        "status": admin.DISABLED if user["is_disabled"] else admin.ACTIVE,
        "createdAt": iso_time(user["created_at"]),
        "secondFactor": bool(user["has_second_factor"]),
        "imageCount": user["image_count"],
        "storageBytes": user["storage_bytes"],
        "limits": public_limits(user),
    }


def public_invite(invite: db.Row) -> dict[str, Any]:
    own = invites.limits_of(invite)
    return {
        "id": invite["id"],
        "note": invite["note"],
        "state": invites.state_of(invite),
        "uses": invite["uses"],
        "maxUses": invite["max_uses"],
        "createdAt": iso_seconds(invite["created_at"]),
        "expiresAt": iso_seconds(invite["expires_at"]),
        "dailyImages": own.daily_images,
        "activeJobs": own.active_jobs,
        "models": own.models,
        "limitDays": invite["limit_days"],
    }


def public_job(job: db.Row) -> dict[str, Any]:
    return {
        "id": job["id"],
        "userId": job["user_id"],
        "username": shown_text(job["username"]),
        "model": shown_text(job["model"]),
        "status": shown_text(job["status"]),
        "attempt": job["attempt"],
        "progress": job["progress"],
        "errorCode": shown_text(job["error_code"]),
        "createdAt": iso_time(job["created_at"]),
        "startedAt": iso_time(job["started_at"]),
        "finishedAt": iso_time(job["finished_at"]),
    }


def public_queue() -> dict[str, Any]:
    queue_status.current.forget()
    paused = queue.list_paused()
    counts = {(row["model"], row["status"]): row["number"] for row in queue.count_unfinished()}
    names = [*catalog.models(), *(name for name, _ in counts), *filter(None, paused)]
    models = []
    for name in dict.fromkeys(names):
        shown = {
            "name": name,
            "pausedAt": iso_seconds(paused.get(name)),
            "pending": counts.get((name, "pending"), 0),
            "processing": counts.get((name, "processing"), 0),
        }
        models.append(shown)
    return {"pausedAt": iso_seconds(paused.get("")), "models": models}


def public_worker(row: db.Row) -> dict[str, Any]:
    report = queue_status.read_report(row["models"])
    return {
        "name": row["name"],
        "seenAt": iso_seconds(row["seen_at"]),
        "averageSeconds": round(row["run_seconds"], 2),
        "models": {name: problem or "ok" for name, problem in report.items()},
    }


def public_image(generation: Generation) -> dict[str, Any]:
    return {
        "id": generation["id"],
        "prompt": shown_text(generation["prompt_text"]) or "",
        "params": {"model_used": None, "seed": None, **parameters.params_of(generation)},
        "status": shown_status(generation),
        "errorMessage": error_message(generation),
        "model": shown_text(generation["model"]),
        "width": shown_number(generation["width"]),
        "height": shown_number(generation["height"]),
        "createdAt": iso_time(generation["created_at"]),
        "imageUrl": admin_url(generation["image_url"]),
        "thumbnailUrl": admin_url(generation["thumbnail_url"]),
    }


def admin_url(url: Any) -> str | None:
    """Return where an admin finds a file that its owner finds at this URL."""
    url = located(shown_text(url))
    return url and url.replace("/api/uploads/generated_images/", "/api/v1/admin/files/", 1)


# -- The audit log ------------------------------------------------------------------------------


def public_entry(row: db.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "at": iso_time(row["created_at"]),
        "actorId": row["actor_id"],
        "actor": row["actor_name"],
        "address": row["address"],
        "action": row["action"],
        "targetKind": row["target_kind"],
        "targetId": row["target_id"],
        "target": row["target_name"],
        "before": row["before"],
        "after": row["after"],
    }


def audit_file(rows: Iterable[db.Row], form: str) -> Response:
    """Answer with all rows as a file, which is sent while they are read."""
    kind = {"csv": "text/csv", "jsonl": "application/jsonl"}[form]
    response = Response(as_text(rows, form), content_type=f"{kind}; charset=utf-8")
    response.headers["Content-Disposition"] = f"attachment; filename=audit.{form}"
    return response


def as_text(rows: Iterable[db.Row], form: str) -> Iterator[str]:
    """Return the lines of a CSV file (RFC 4180), its names first, or of one of JSON objects."""
    if form == "csv":
        yield csv_line(ENTRY_FIELDS)
    for entry in map(public_entry, rows):
        if form == "csv":
            yield csv_line(cell(value) for value in entry.values())
        else:
            yield json.dumps(entry, ensure_ascii=False) + "\n"


def cell(value: Any) -> str:
    """Return a value as a text that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
