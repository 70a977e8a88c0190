"""SQL of `image_tags`: the words that owners give their images, for lists and filters.

The column `tags` of a generation has them, too, so that a record needs no second statement; both
are changed together. Which tags are the same, search.fold() says; of an account, each has one
spelling, the first.
"""

import json
from typing import Any

import db
from images import quota, search
from images.schemas import MAX_TAGS
from validation import InvalidInput

# A list shows so many, the most used first; it may take so long.
MAX_LISTED = 1000
MAX_SECONDS = 2

# What one image has: the tags as they are shown, by their keys.
Tags = dict[str, str]


def read(text: Any) -> list[str]:
    """Return the tags in the column of a row."""
    if not text:
        return []
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def keyed(tags: list[str]) -> Tags:
    return {search.fold(tag): tag for tag in tags}


def list_tags(user_id: int) -> list[db.Row]:
    """List the user's tags, the most used first: rows of {tag, count}.

    It counts all that the user has tagged, so it takes its turn among searches, and raises as they.
    """
    return search.run(user_id, _count_tags, user_id)


def _count_tags(user_id: int) -> list[db.Row]:
    return db.all_within(
        MAX_SECONDS,
        """
          SELECT (SELECT t.tag
                    FROM image_tags AS t
                   WHERE t.user_id = %(user_id)s AND t.tag_key = counted.tag_key
                   LIMIT 1) AS tag,
                 counted.count
            FROM (SELECT tag_key, COUNT(*) AS count
                    FROM image_tags
                   WHERE user_id = %(user_id)s
                GROUP BY tag_key
                ORDER BY count DESC, tag_key
                   LIMIT %(most)s) AS counted
        ORDER BY counted.count DESC, counted.tag_key
        """,
        user_id=user_id,
        most=MAX_LISTED,
    )


@db.retried
def change(user_id: int, ids: list[int], add: list[str], remove: list[str]) -> list[db.Row]:
    """Remove and add tags of those of the generations that are the user's: all, or none.

    Returns {id, tags} of each. Raises InvalidInput if one would have more than MAX_TAGS.
    """
    removed = keyed(remove).keys()
    with db.transaction():
        quota.lock_user(user_id)
        added = _with_known_spellings(user_id, keyed(add))
        changed = []
        for row in _lock_rows(user_id, ids):
            before = keyed(read(row["tags"]))
            kept = {key: tag for key, tag in before.items() if key not in removed}
            after = {**kept, **{key: tag for key, tag in added.items() if key not in kept}}
            if len(after) > MAX_TAGS:
                raise InvalidInput(fields={"add": ("too_many_tags", {"most": MAX_TAGS})})
            if after != before:
                _replace(row, before, after)
            changed.append({"id": row["id"], "tags": list(after.values())})
    return changed


def _with_known_spellings(user_id: int, wanted: Tags) -> Tags:
    """Return the tags as the account spells them already."""
    if not wanted:
        return {}
    rows = db.all(
        f"""
          SELECT tag_key, MIN(tag) AS tag
            FROM image_tags
           WHERE user_id = %s AND tag_key IN ({db.placeholders(wanted)})
        GROUP BY tag_key
        """,
        user_id,
        *wanted,
    )
    return {**wanted, **{row["tag_key"]: row["tag"] for row in rows}}


def _lock_rows(user_id: int, ids: list[int]) -> list[db.Row]:
    return db.all(
        f"""
          SELECT id, user_id, tags, created_at
            FROM image_generations
           WHERE user_id = %s AND id IN ({db.placeholders(ids)})
        ORDER BY id
             FOR UPDATE
        """,
        user_id,
        *ids,
    )


def _set_column(row: db.Row, tags: Tags) -> None:
    db.execute(
        "UPDATE image_generations SET tags = %s, updated_at = CURRENT_TIMESTAMP WHERE id = %s",
        json.dumps(list(tags.values()), ensure_ascii=False),
        row["id"],
    )


def _replace(row: db.Row, before: Tags, after: Tags) -> None:
    _set_column(row, after)
    removed = before.keys() - after.keys()
    if removed:
        db.execute(
            f"""
            DELETE FROM image_tags
             WHERE generation_id = %s AND tag_key IN ({db.placeholders(removed)})
            """,
            row["id"],
            *removed,
        )
    enter(row, {key: tag for key, tag in after.items() if key not in before})


def enter(row: db.Row, tags: Tags) -> None:
    """Enter tags of a generation, a row of {id, user_id, created_at}, into the table."""
    if not tags:
        return
    values = []
    for key, tag in tags.items():
        values += [row["user_id"], row["id"], key, tag, row["created_at"]]
    db.execute(
        f"""
        INSERT INTO image_tags (user_id, generation_id, tag_key, tag, created_at)
        VALUES {", ".join(["(%s, %s, %s, %s, %s)"] * len(tags))}
        """,
        *values,
    )


def enter_again(user_id: int, rows: list[db.Row]) -> None:
    """Enter the tags in the column of restored generations, as the account spells them by now."""
    tags_of = {row["id"]: keyed(read(row["tags"])) for row in rows}
    wanted = {key: tag for tags in tags_of.values() for key, tag in tags.items()}
    known = _with_known_spellings(user_id, wanted)
    for row in rows:
        before = tags_of[row["id"]]
        after = {key: known[key] for key in before}
        if after != before:
            _set_column(row, after)
        enter(row, after)


def remove_all(ids: list[int]) -> None:
    """Remove generations from the table, which leave the history; their rows keep their tags."""
    db.execute(f"DELETE FROM image_tags WHERE generation_id IN ({db.placeholders(ids)})", *ids)
