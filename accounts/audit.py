"""SQL of `audit_log`: who changed what, from what to what, for whom, from where and when.

Rows are added in the transaction of the change and never changed. They name accounts as they were
called then, also those that are deleted later.
"""

import json
import socket
from typing import Any, NamedTuple

import db
from accounts.pages import Page, page_of

COLUMNS = """
    id, created_at, actor_id, actor_name, address, action, target_kind, target_id, target_name,
    before_json, after_json
"""
FILTERS = {
    "cursor": "id < %(cursor)s",
    "actor": "actor_name = %(actor)s",
    "actor_id": "actor_id = %(actor_id)s",
    "action": "action = %(action)s",
    "since": "created_at >= %(since)s",
    "until": "created_at <= %(until)s",
    "first_id": "id >= %(first_id)s",
    "last_id": "id <= %(last_id)s",
}
MAX_INT = 2**31 - 1  # what the column holds
# Entries are added in the order of their time, or so many later at most.
SPARE_IDS = 1000


class Actor(NamedTuple):
    """Who changes something: an admin, or a command, which has no id and a machine's name."""

    user_id: int | None
    name: str
    address: str


class Target(NamedTuple):
    """Whom or what is changed, such as ("user", 7, "alice")."""

    kind: str
    id: int | None = None
    name: str = ""


def command() -> Actor:
    """Return who changes something by `flask …` on this machine."""
    return Actor(None, "command", socket.gethostname()[:64])


def record(
    actor: Actor, action: str, target: Target, before: Any = None, after: Any = None
) -> None:
    """Note a change, within its transaction. What is secret must not be in before and after."""
    db.insert(
        "audit_log",
        actor_id=actor.user_id,
        actor_name=actor.name,
        address=actor.address,
        action=action,
        target_kind=target.kind,
        target_id=target.id,
        target_name=target.name,
        before_json=to_json(before),
        after_json=to_json(after),
    )


def to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def list_entries(filters: db.Row, limit: int) -> Page:
    """List rows that match the filters of FILTERS, the newest first."""
    filters = {**filters, **_ids_between(filters)}
    if is_id(filters.get("actor", "")):
        filters["actor_id"] = int(filters.pop("actor"))
    conditions = " AND ".join(FILTERS[name] for name in filters) or "1 = 1"
    sql = f"SELECT {COLUMNS} FROM audit_log WHERE {conditions} ORDER BY id DESC LIMIT %(limit)s"
    return page_of([readable(row) for row in db.all(sql, **filters, limit=limit)], limit)


def _ids_between(filters: db.Row) -> dict[str, int]:
    """Return between which ids the entries of these times are, so that no others are read."""
    found = {}
    if "since" in filters:
        sql = "SELECT id FROM audit_log WHERE created_at >= %s ORDER BY created_at, id LIMIT 1"
        first = db.one(sql, filters["since"])
        found["first_id"] = first["id"] - SPARE_IDS if first else MAX_INT
    if "until" in filters:
        sql = """
              SELECT id
                FROM audit_log
               WHERE created_at <= %s
            ORDER BY created_at DESC, id DESC
               LIMIT 1
        """
        last = db.one(sql, filters["until"])
        found["last_id"] = last["id"] + SPARE_IDS if last else 0
    return found


def is_id(text: str) -> bool:
    """Tell if this is an id; an admin whose name is a number is found by the id."""
    return text.isascii() and text.isdigit() and len(text) < 10


def readable(row: db.Row) -> db.Row:
    """Return a row with `before` and `after` as values."""
    for name in ("before", "after"):
        text = row.pop(f"{name}_json")
        row[name] = json.loads(text) if text else None
    return row
