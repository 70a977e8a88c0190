"""SQL of `image_generations` as owners see it, and of `deleted_generations`, the tombstones.

Ownership is in each WHERE: what is another's is as if it were not there.
"""

from typing import Any, TypedDict

import db
from accounts.tokens import BadToken, Session
from files import cleanup, storage
from images import UNFINISHED, quota


class Generation(TypedDict):
    """A row as COLUMNS selects it."""

    id: int
    prompt_text: str
    image_url: str | None
    thumbnail_url: str | None
    status: str
    created_at: str | None
    updated_at: str | None
    generation_params_json: str | None
    error_message: str | None
    error_code: str | None
    error_detail: str | None
    model: str | None
    width: int | None
    height: int | None
    progress: int
    favorite: int
    started_at: str | None
    finished_at: str | None


COLUMNS = ", ".join(f"g.{name}" for name in Generation.__annotations__)


# -- Lists --------------------------------------------------------------------------------------

FILTERS = {
    "status": "status = %(status)s",
    "favorite": "favorite = %(favorite)s",
    "model": "model = %(model)s",
    "since": "created_at >= %(since)s",
    "until": "created_at <= %(until)s",
    "q": "prompt_text LIKE %(q)s ESCAPE '!'",
}
AFTER_CURSOR = """
    created_at <= %(after_time)s AND (created_at < %(after_time)s OR id < %(after_id)s)
"""
# A filtered history is counted up to here; beyond, a client learns only that there are more.
MAX_COUNT = 1000


def list_generations(
    session: Session,
    limit: int,
    offset: int = 0,
    after: tuple[str, int] | None = None,
    filters: dict[str, Any] | None = None,
) -> tuple[list[Generation], int]:
    """Return one page of the user's generations, newest first, and how many are on all pages.

    The page begins at the offset, or after a (created_at, id). With filters the count ends at
    MAX_COUNT. The statement also makes the check that every request makes: raises BadToken.
    """
    filters = filters or {}
    values = {**session._asdict(), **filters, "limit": limit, "offset": offset}
    if "q" in filters:
        values["q"] = contains(filters["q"])
    conditions = ["user_id = %(user_id)s"]
    conditions += [FILTERS[name] for name in filters]
    total = _count_some(conditions) if filters else "image_count"
    if after:
        values["after_time"], values["after_id"] = after
        conditions.append(AFTER_CURSOR)
    rows = db.all(_select_page(total, conditions), **values)
    if not rows:
        raise BadToken
    generations = [row for row in rows if row["id"]]
    return generations, rows[0]["total"]


def _count_some(conditions: list[str]) -> str:
    return f"""
        (SELECT COUNT(*)
           FROM (SELECT 1
                   FROM image_generations
                  WHERE {" AND ".join(conditions)}
                  LIMIT {MAX_COUNT}) AS found)
    """


def _select_page(total: str, conditions: list[str]) -> str:
    """Return the statement for a page, which has a row without a generation if there is none.

    The inner query reads an index alone, so that a deep page costs little. To order by its columns,
    not by those of the rows, spares MySQL a temporary table on disk for their texts.
    """
    return f"""
           SELECT account.total, {COLUMNS}
             FROM (SELECT {total} AS total
                     FROM users
                    WHERE id = %(user_id)s AND token_version = %(token_version)s
                      AND is_disabled = 0) AS account
        LEFT JOIN (SELECT id, created_at
                     FROM image_generations
                    WHERE {" AND ".join(conditions)}
                 ORDER BY created_at DESC, id DESC
                    LIMIT %(limit)s OFFSET %(offset)s) AS page ON 1 = 1
        LEFT JOIN image_generations AS g ON g.id = page.id
         ORDER BY page.created_at DESC, page.id DESC
    """


def contains(text: str) -> str:
    """Return a LIKE pattern, with `!` as its escape, for texts that contain this one."""
    escaped = text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"


def list_owned(user_id: int, ids: list[int]) -> list[Generation]:
    """Return those of the generations that are the user's."""
    return db.all(
        f"""
          SELECT {COLUMNS}
            FROM image_generations AS g
           WHERE g.user_id = %s AND g.id IN ({db.placeholders(ids)})
        ORDER BY g.id
        """,
        user_id,
        *ids,
    )


# -- One generation -----------------------------------------------------------------------------


def get_owned(session: Session, generation_id: int) -> Generation | None:
    """Return a generation if it is the user's. Raises BadToken, as the session is checked too.

    In one statement, because a page that waits for an image asks for it again and again.
    """
    row = db.one(
        f"""
           SELECT {COLUMNS}
             FROM users AS u
        LEFT JOIN image_generations AS g ON g.id = %(id)s AND g.user_id = u.id
            WHERE u.id = %(user_id)s AND u.token_version = %(token_version)s
              AND u.is_disabled = 0
        """,
        id=generation_id,
        **session._asdict(),
    )
    if not row:
        raise BadToken
    return row if row["id"] else None


def was_deleted(user_id: int, generation_id: int) -> bool:
    sql = "SELECT id FROM deleted_generations WHERE id = %s AND user_id = %s"
    return db.one(sql, generation_id, user_id) is not None


def set_favorite(user_id: int, generation_id: int, favorite: bool) -> bool:
    changed = db.execute(
        """
        UPDATE image_generations
           SET favorite = %(favorite)s, updated_at = CURRENT_TIMESTAMP
         WHERE id = %(id)s AND user_id = %(user_id)s
        """,
        favorite=int(favorite),
        id=generation_id,
        user_id=user_id,
    )
    return changed.count > 0


def delete_generations(user_id: int, ids: list[int]) -> list[Generation]:
    """Delete those of the generations that are the user's, and return what they were.

    The deletion of their files is scheduled for now; the caller may delete them at once.
    """
    with db.transaction():
        quota.lock_user(user_id)
        # Their rows too, or a worker could complete one, and keep its files, while we delete it.
        db.all(
            f"""
              SELECT id
                FROM image_generations
               WHERE user_id = %s AND id IN ({db.placeholders(ids)})
            ORDER BY id
                 FOR UPDATE
            """,
            user_id,
            *ids,
        )
        generations = list_owned(user_id, ids)
        for generation in generations:
            if generation["status"] in UNFINISHED:
                quota.refund(user_id, generation["id"])
            db.execute("DELETE FROM image_generations WHERE id = %s", generation["id"])
            db.insert("deleted_generations", id=generation["id"], user_id=user_id)
            cleanup.schedule_deletion(file_keys(generation), after_seconds=0)
        quota.forget_images(user_id, len(generations))
    return generations


def file_keys(generation: Generation) -> list[str]:
    """Return the keys of the image and its thumbnail, which an old row may have as one file."""
    urls = {generation["image_url"], generation["thumbnail_url"]}
    return sorted(storage.key_of(str(url)) for url in urls if url)
