"""Long lists for operators: by pages that follow each other by a cursor, or all rows in a row.

A list is a function of filters and a limit that returns rows, the newest first, and the cursor of
the next page: the id after which it begins, or None after the last row.
"""

from collections.abc import Callable, Iterator

import db

Page = tuple[list[db.Row], int | None]

BATCH_ROWS = 500


def page_of(rows: list[db.Row], limit: int) -> Page:
    return rows, rows[-1]["id"] if len(rows) == limit else None


def all_rows(list_page: Callable[[db.Row, int], Page], filters: db.Row) -> Iterator[db.Row]:
    """Return every row of a list, without holding all of them in memory."""
    filters = {name: value for name, value in filters.items() if value is not None}
    while True:
        rows, cursor = list_page(filters, BATCH_ROWS)
        yield from rows
        if cursor is None:
            return
        filters["cursor"] = cursor
