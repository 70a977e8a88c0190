"""SQL of `rate_limits`: counters with an end, shared by all processes and machines."""

import ipaddress
from typing import NamedTuple

import db
from errors import ApiError


class RateLimit(NamedTuple):
    """At most so many hits of each counter in a window; `code` is the error of one more."""

    counters: dict[str, int]
    window_seconds: int
    code: str

    def check(self) -> None:
        """Raise ApiError if a counter has no hit left; costs one read."""
        self._refuse(db.all(self._select(), *self.counters), spare=1)

    def hit(self) -> dict[str, int]:
        """Count one hit of each counter, and return all hits of each.

        Raises ApiError if that is one too many.
        """
        values = []
        # In the order of the index, as refund() locks them, too: otherwise two could deadlock.
        for name in sorted(self.counters):
            values += [name, self.window_seconds]
        add = (self._upsert(), [*values, self.window_seconds])
        read = (self._select(), list(self.counters))
        _, found = db.run_transaction(add, read)
        self._refuse(found.rows, spare=0)
        return {row["name"]: row["hits"] for row in found.rows}

    def refund(self) -> None:
        """Take a hit of each counter back, after an attempt that turned out to be a good one."""
        names = db.placeholders(self.counters)
        db.execute(
            f"UPDATE rate_limits SET hits = hits - 1 WHERE name IN ({names}) AND hits > 0",
            *self.counters,
        )

    def _select(self) -> str:
        return f"""
            SELECT name, hits, expires_at - UNIX_TIMESTAMP() AS seconds_left
              FROM rate_limits
             WHERE name IN ({db.placeholders(self.counters)}) AND expires_at > UNIX_TIMESTAMP()
        """

    def _upsert(self) -> str:
        """Return the statement that adds one to each counter; one that has run out starts anew."""
        rows = ", ".join(["(%s, 1, UNIX_TIMESTAMP() + %s)"] * len(self.counters))
        return f"""
            INSERT INTO rate_limits (name, hits, expires_at)
            VALUES {rows}
                ON DUPLICATE KEY UPDATE
                   hits = CASE WHEN expires_at > UNIX_TIMESTAMP() THEN hits + 1 ELSE 1 END,
                   expires_at = CASE WHEN expires_at > UNIX_TIMESTAMP() THEN expires_at
                                     ELSE UNIX_TIMESTAMP() + %s END
        """

    def _refuse(self, rows: list[db.Row], spare: int) -> None:
        for row in rows:
            if row["hits"] + spare > self.counters[row["name"]]:
                raise ApiError(self.code, retry_after=row["seconds_left"])


def delete_expired() -> int:
    """Delete the counters that have run out; a new hit starts from nothing either way."""
    return db.execute("DELETE FROM rate_limits WHERE expires_at < UNIX_TIMESTAMP()").count


def network(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 network of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
