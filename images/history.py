"""SQL of `image_generations` as owners see it.

Ownership is in each WHERE: what is another's is as if it were not there.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypedDict

import db
from accounts import sessions
from accounts.tokens import BadToken, Session
from files import storage
from images import search


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
    tags: str | None
    kept_since: int | None
    inputs_json: str | None


# A number costs a page of 50 rows 22 us more than NULL, and few are kept beyond their time.
COLUMNS = ", ".join(f"g.{name}" for name in Generation.__annotations__).replace(
    "g.kept_since", "NULLIF(g.kept_since, 0) AS kept_since"
)


# -- Lists --------------------------------------------------------------------------------------

FILTERS = {
    "status": "status = %(status)s",
    "favorite": "favorite = %(favorite)s",
    "model": "model = %(model)s",
    "since": "created_at >= %(since)s",
    "until": "created_at <= %(until)s",
    # Rows that the release before adds, while machines are upgraded, have no search_text yet.
    "q": "INSTR(COALESCE(search_text, LOWER(prompt_text)), %(q)s) > 0",
}
# Each has an index of its own, in the order of time.
INDEXED = {"status", "favorite", "model", "tag"}
# Where generations with a tag are read from: the index of the tag leads to them.
TAGGED = """
    (SELECT t.generation_id AS id, t.user_id, t.created_at, g.status, g.favorite, g.model,
            g.search_text, g.prompt_text, g.image_url
       FROM image_tags AS t
       JOIN image_generations AS g ON g.id = t.generation_id
      WHERE t.user_id = %(user_id)s AND t.tag_key = %(tag)s) AS tagged
"""
ALSO_TAGGED = """
    EXISTS (SELECT 1
              FROM image_tags AS also
             WHERE also.generation_id = tagged.id AND also.tag_key = %({name})s)
"""
# Of texts, and of a second tag, there is none.
SEARCHED = {"q", "tag_1"}
TIMES = {"since", "until"}
AFTER_CURSOR = """
    created_at <= %(after_time)s AND (created_at < %(after_time)s OR id < %(after_id)s)
"""
UP_TO_END = "created_at >= %(end_time)s AND (created_at > %(end_time)s OR id >= %(end_id)s)"
# A filtered history is counted up to here; beyond, a client learns only that there are more.
MAX_COUNT = 1000
# Where no index helps, a page looks through this many generations, which takes about 0.1 s; it is
# stopped after so many seconds if the disk is slow, or the prompts are made to be searched slowly.
MAX_LOOKED_THROUGH = 20_000
MAX_SECONDS = 2
# To read an index up to a page so deep takes as long.
DEEP_OFFSET = 50_000


class Page(NamedTuple):
    """Generations, the newest first; how many are on all pages; and where this page ends.

    That is a (created_at, id), after which the next page begins, or None if there is none.
    """

    generations: list[Generation]
    total: int
    end: tuple[str, int] | None


def list_generations(
    session: Session,
    limit: int,
    offset: int = 0,
    after: tuple[str, int] | None = None,
    filters: dict[str, Any] | None = None,
) -> Page:
    """Return one page of the user's generations, from the offset or after a (created_at, id).

    Raises BadToken; and TooManySearches, Busy or TooSlow if more than the near end of an index has
    to be read.
    """
    filters = with_tags(filters or {})
    values = {**session._asdict(), **filters, "limit": limit, "offset": offset}
    if after:
        values["after_time"], values["after_id"] = after
    if not SEARCHED & filters.keys() and len(INDEXED & filters.keys()) <= 1:
        if offset <= DEEP_OFFSET:
            return _page(session, filters, values)
        return search.run(session.user_id, _page, session, filters, values, MAX_SECONDS)
    return search.run(session.user_id, _search, session, filters, values)


def _page(session: Session, filters: db.Row, values: db.Row, seconds: int = 0) -> Page:
    """Return a page that an index serves; with filters the total ends at MAX_COUNT.

    The statement also makes the check that every request makes: raises BadToken.
    """
    source = _source(filters)
    conditions = _conditions(filters)
    total = _count_some(source, conditions) if filters else "image_count"
    if "after_id" in values:
        conditions.append(AFTER_CURSOR)
    rows = db.all_within(seconds, _select_page(session, source, total, conditions), **values)
    if not rows:
        raise BadToken
    generations = _newest_first([row for row in rows if row["id"]])
    is_full = len(generations) == values["limit"]
    return Page(generations, rows[0]["total"], _place(generations[-1]) if is_full else None)


def with_tags(filters: db.Row) -> db.Row:
    """Return the filters with a name for each tag: `tag` for the first, then `tag_1` and so on."""
    others = {name: value for name, value in filters.items() if name != "tag"}
    keys = dict.fromkeys(map(search.fold, filters.get("tag", [])))
    tags = {f"tag_{number}" if number else "tag": key for number, key in enumerate(keys)}
    return {**others, **tags}


def _source(filters: Iterable[str]) -> str:
    return TAGGED if "tag" in filters else "image_generations"


def _conditions(names: Iterable[str]) -> list[str]:
    conditions = ["user_id = %(user_id)s"]
    for name in names:
        if name.startswith("tag_"):
            conditions.append(ALSO_TAGGED.format(name=name))
        elif name != "tag":
            conditions.append(FILTERS[name])
    return conditions


def _newest_first(rows: list[db.Row]) -> list[db.Row]:
    # Sorted by the database, their texts would go to a temporary table on disk.
    return sorted(rows, key=_age, reverse=True)


def _age(row: db.Row) -> tuple[int, Any, int]:
    """Return what sorts as in SQLite, where an old row may have anything for a time."""
    kinds = (type(None), int | float, str, bytes)
    [kind] = [number for number, kind in enumerate(kinds) if isinstance(row["created_at"], kind)]
    return kind, row["created_at"] or 0 if kind < 2 else row["created_at"], row["id"]


def _place(row: db.Row) -> tuple[str, int] | None:
    # What has no time comes last, and no cursor leads there.
    return (row["created_at"], row["id"]) if row["created_at"] else None


def _count_some(source: str, conditions: list[str]) -> str:
    return f"""
        (SELECT COUNT(*)
           FROM (SELECT 1
                   FROM {source}
                  WHERE {" AND ".join(conditions)}
                  LIMIT {MAX_COUNT}) AS found)
    """


def _select_page(session: Session, source: str, total: str, conditions: list[str]) -> str:
    """Return the statement for a page, which has a row without a generation if there is none.

    The inner query reads an index alone, so that a deep page costs little.
    """
    return f"""
           SELECT account.total, {COLUMNS}
             FROM (SELECT {total} AS total
                     FROM users AS u
                    WHERE {sessions.condition(session)}) AS account
        LEFT JOIN (SELECT id
                     FROM {source}
                    WHERE {" AND ".join(conditions)}
                 ORDER BY created_at DESC, id DESC
                    LIMIT %(limit)s OFFSET %(offset)s) AS page ON 1 = 1
        LEFT JOIN image_generations AS g ON g.id = page.id
    """


def _search(session: Session, filters: db.Row, values: db.Row) -> Page:
    """Return a page that no index serves, out of the next MAX_LOOKED_THROUGH generations.

    The total counts what was found up to the end of the page, and one if there is more. The session
    is checked here, so that a search too many costs the database nothing. Raises BadToken.
    """
    sessions.check(session)
    if "tag_1" in filters:
        values |= _rarest_first(filters, values)
    source = _source(filters)
    within = _conditions(TIMES & filters.keys())
    conditions = _conditions(filters)
    if "after_id" in values:
        within.append(AFTER_CURSOR)
        conditions.append(AFTER_CURSOR)
    if "q" in filters:
        values["q"] = search.fold(filters["q"])
    last = _newest(source, within, values, 1, MAX_LOOKED_THROUGH - 1)
    end = _place(last[0]) if last else None
    if end:
        values["end_time"], values["end_id"] = end
        conditions.append(UP_TO_END)
    first = values["offset"]
    past = min(first + values["limit"], MAX_COUNT)
    found = _newest(source, conditions, values, past + 1)
    shown = found[first:past]
    if len(shown) == values["limit"]:
        end = _place(shown[-1])
    generations = list_owned(values["user_id"], [row["id"] for row in shown])
    return Page(_newest_first(generations), min(len(found), MAX_COUNT), end)


def _rarest_first(filters: db.Row, values: db.Row) -> db.Row:
    """Return the tags anew, the one of the fewest generations first: that is the one read along."""
    names = [name for name in filters if name.startswith("tag")]
    counts = [
        f"""
        (SELECT COUNT(*)
           FROM (SELECT 1
                   FROM image_tags
                  WHERE user_id = %(user_id)s AND tag_key = %({name})s
                  LIMIT {MAX_LOOKED_THROUGH}) AS counted) AS {name}
        """
        for name in names
    ]
    [row] = db.all_within(MAX_SECONDS, f"SELECT {', '.join(counts)}", **values)
    return dict(zip(names, [filters[name] for name in sorted(names, key=row.get)], strict=True))


def _newest(
    source: str, conditions: list[str], values: db.Row, most: int, skipped: int = 0
) -> list[db.Row]:
    return db.all_within(
        MAX_SECONDS,
        f"""
          SELECT id, created_at
            FROM {source}
           WHERE {" AND ".join(conditions)}
        ORDER BY created_at DESC, id DESC
           LIMIT %(most)s OFFSET %(skipped)s
        """,
        **values,
        most=most,
        skipped=skipped,
    )


def list_owned(user_id: int, ids: list[int]) -> list[Generation]:
    """Return those of the generations that are the user's."""
    if not ids:
        return []
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


def list_with_image(user_id: int, ids: list[int]) -> set[int]:
    """Return those of the generations that are the user's and have an image."""
    found = set()
    for first in range(0, len(ids), LOOK_ROWS):
        some = ids[first : first + LOOK_ROWS]
        rows = db.all(
            f"""
            SELECT id
              FROM image_generations
             WHERE user_id = %s AND image_url IS NOT NULL AND id IN ({db.placeholders(some)})
            """,
            user_id,
            *some,
        )
        found |= {row["id"] for row in rows}
    return found


def find_with_image(user_id: int, filters: db.Row, most: int) -> list[int]:
    """Return the ids of at most so many generations with an image, the newest first.

    Raises TooManySearches, Busy or TooSlow.
    """
    filters = with_tags(filters)
    conditions = [*_conditions(filters), "image_url IS NOT NULL"]
    values = {**filters, "user_id": user_id}
    if "q" in filters:
        values["q"] = search.fold(filters["q"])
    rows = search.run(user_id, _newest, _source(filters), conditions, values, most)
    return [row["id"] for row in rows]


# -- Search texts -------------------------------------------------------------------------------

# So many rows are looked through at once, and so many get their text in one transaction, which the
# longest prompts keep below the server's limit of a packet.
LOOK_ROWS = 1000
FILL_ROWS = 100


def fill_search_texts() -> None:
    """Give rows without a search_text theirs; may be stopped and go on, and run many at once."""
    done = 0
    while last := db.retry_while_unavailable(_last_of_next, done):
        rows = db.retry_while_unavailable(_list_without_search_text, done, last)
        for first in range(0, len(rows), FILL_ROWS):
            some = rows[first : first + FILL_ROWS]
            db.retry_while_unavailable(db.run_transaction, *map(_fill, some))
        done = last


def _last_of_next(after_id: int) -> int | None:
    return db.value(
        """
        SELECT MAX(id)
          FROM (SELECT id FROM image_generations WHERE id > %s ORDER BY id LIMIT %s) AS next
        """,
        after_id,
        LOOK_ROWS,
    )


def _list_without_search_text(after_id: int, last_id: int) -> list[db.Row]:
    return db.all(
        """
          SELECT id, prompt_text
            FROM image_generations
           WHERE id > %s AND id <= %s AND search_text IS NULL
        ORDER BY id
        """,
        after_id,
        last_id,
    )


def _fill(row: db.Row) -> tuple[str, db.Row]:
    sql = """
        UPDATE image_generations
           SET search_text = %(text)s, updated_at = updated_at
         WHERE id = %(id)s AND search_text IS NULL
    """
    return sql, {"id": row["id"], "text": search.fold(str(row["prompt_text"] or ""))}


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
            WHERE {sessions.condition(session)}
        """,
        id=generation_id,
        **session._asdict(),
    )
    if not row:
        raise BadToken
    return row if row["id"] else None


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


def image_key(user_id: int, url: str) -> str | None:
    """Return the key of an image; None if it is not in the user's folder, as in odd old rows."""
    key = storage.key_of(url)
    folder, _, name = key.rpartition("/")
    return key if name and folder == f"generated_images/{user_id}" else None


def is_of_user(user_id: int, key: str) -> bool:
    """Tell if a file may be the user's: programs before this one had no folders of users."""
    folder = key.rpartition("/")[0]
    return folder in ("generated_images", f"generated_images/{user_id}")
