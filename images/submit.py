"""From a request to rows in the queue. SQL of `idempotency_keys`; adds to `image_generations`.

One path: the quota is reserved and the rows are inserted in one transaction, which is one round
trip to the database. Only if nothing was reserved is a closer look taken, at why.
"""

import hashlib
import time
from collections.abc import Sequence
from itertools import count

import db
from accounts import sessions
from accounts.tokens import BadToken, Session
from errors import ApiError
from images import (
    PENDING,
    blocklist,
    broker,
    history,
    inputs,
    parameters,
    queue_status,
    quota,
    uploads,
)
from images.schemas import GenerateInput

KEY_SECONDS = 7 * 86400


class QueueFull(ApiError):
    code = "queue_full"


class KeyReused(ApiError):
    code = "key_reused"


def submit(
    session: Session, wanted: GenerateInput, key: str | None = None, request: str = ""
) -> list[history.Generation]:
    """Queue `wanted.n` generations, all or none, with seeds in a row; return them.

    The same idempotency key and request again return the generations of the first time; `request`
    says what the request was if `wanted` was made from something else.
    Raises InvalidInput, PromptBlocked, BadToken, KeyReused, inputs.Missing, ModelNotAllowed,
    QuotaSpent, TooManySubmits, TooManyActive, QueueFull.
    """
    if not parameters.is_too_long(wanted):  # which fill() refuses, and comparing takes its time
        blocklist.check(wanted.prompt)
    rows = parameters.new_rows(parameters.fill(wanted), extra={})
    used_key = UsedKey(key, request or wanted.fingerprint()) if key else None
    return submit_rows(session, rows, used_key, sources=inputs.sources_of(wanted))


def submit_rows(
    session: Session,
    rows: list[db.Row],
    used_key: "UsedKey | None",
    hold_seconds: int = 0,
    sources: Sequence[inputs.Source] = (),
) -> list[history.Generation]:
    """Do the same with rows that are made; workers leave them alone for `hold_seconds`."""
    if used_key and (earlier := used_key.generations(session)):
        return earlier
    if sources:
        found = inputs.find(session, sources, rows[0]["model"])
        rows = [{**row, "inputs_json": parameters.to_json(found)} for row in rows]
    try:
        return insert(session, rows, hold_seconds, used_key, sources)
    except db.Duplicate:  # the same request at the same moment was faster
        return used_key.generations(session)


def insert(
    session: Session,
    rows: list[db.Row],
    hold_seconds: int,
    used_key: "UsedKey | None" = None,
    sources: Sequence[inputs.Source] = (),
) -> list[history.Generation]:
    """Insert rows, with the key if there is one. Raises Duplicate if the key is there already."""
    number = len(rows)
    model = rows[0]["model"]  # which is that of all
    if queue_status.is_full(number):
        quota.make_room(session, model, number)  # what the user has used up is said first
        raise QueueFull(retry_after=30)
    seconds = queue_status.current().now()
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    values = {
        "user_id": session.user_id,
        "number": number,
        "now": now,
        "today": quota.day_of(seconds),
        "not_before": seconds + hold_seconds if hold_seconds else 0,
        "api_key_id": session.session_id if session.key_hash else None,
    }
    for attempt in count():
        reserving = quota.reserve(session, model, number, values["today"], has_limits=attempt > 0)
        all_statements = [*reserving, *statements(rows, values, used_key)]
        inserts = slice(-number - 1, -1) if used_key else slice(-number, None)
        if sources:
            results = run_with_inputs(session, sources, all_statements, inserts)
        else:
            results = db.run_transaction(*all_statements)
        reserved = results[: len(reserving)]
        if reserved[-1].count:
            break
        if attempt:
            values["today"] = quota.make_room(session, model, number)
    quota.note_submitted(reserved, seconds)
    if not hold_seconds:
        broker.wake(model, number)
    return [new_record(row, now, result.new_id) for row, result in zip(rows, results[inserts])]


@db.retried
def run_with_inputs(
    session: Session,
    sources: Sequence[inputs.Source],
    all_statements: list[tuple[str, db.Row]],
    inserts: slice,
) -> list[db.Result]:
    """Run the statements of a submit while nobody can delete what its images are made from.

    Raises inputs.Missing if somebody just did.
    """
    with db.transaction():
        quota.lock_user(session.user_id)
        inputs.check_there(session, sources)
        results = [db.execute(sql, **values) for sql, values in all_statements]
        ids = [result.new_id for result in results[inserts] if result.count]
        uploads.note_uses(session.user_id, inputs.upload_ids(sources), ids)
    return results


def statements(
    rows: list[db.Row], values: db.Row, used_key: "UsedKey | None"
) -> list[tuple[str, db.Row]]:
    """Return what a submit runs, in one transaction, after the quota is reserved."""
    inserts = [(INSERT, {"inputs_json": None, **values, **row}) for row in rows]
    if not used_key:
        return inserts
    values = {**values, **used_key.columns}
    return [(INSERT_KEY, values), *inserts, (NOTE_IDS, values)]


# A record that was just inserted, less what its request says: NULL until a worker sets it.
NEW = {
    **dict.fromkeys(history.Generation.__annotations__),
    "status": PENDING,
    "progress": 0,
    "favorite": 0,
}


def new_record(row: db.Row, now: str, generation_id: int) -> history.Generation:
    """Return a row that was just inserted. To read even three columns back takes 70 us."""
    return {**NEW, **row, "created_at": now, "updated_at": now, "id": generation_id}


# Each statement changes something only if the one before it did.
INSERT = """
    INSERT INTO image_generations
           (user_id, prompt_text, search_text, status, progress, favorite, model, width, height,
            generation_params_json, inputs_json, created_at, updated_at, not_before, quota_day,
            api_key_id)
    SELECT %(user_id)s, %(prompt_text)s, %(search_text)s, 'pending', 0, 0, %(model)s,
           %(width)s, %(height)s,
           %(generation_params_json)s, %(inputs_json)s, %(now)s, %(now)s, %(not_before)s, %(today)s,
           %(api_key_id)s
      FROM DUAL
     WHERE ROW_COUNT() = 1
"""
INSERT_KEY = """
    INSERT INTO idempotency_keys
           (user_id, idempotency_key, body_hash, generation_ids, expires_at)
    SELECT %(user_id)s, %(key)s, %(body_hash)s, '', UNIX_TIMESTAMP() + %(key_seconds)s
      FROM DUAL
     WHERE ROW_COUNT() = 1
"""
# The user's row is locked, so nobody else inserts for the user: the last rows are ours.
NOTE_IDS = """
    UPDATE idempotency_keys
       SET generation_ids = (SELECT GROUP_CONCAT(id)
                               FROM (SELECT id
                                       FROM image_generations
                                      WHERE user_id = %(user_id)s AND id <= LAST_INSERT_ID()
                                   ORDER BY id DESC
                                      LIMIT %(number)s) AS just_inserted)
     WHERE user_id = %(user_id)s AND idempotency_key = %(key)s AND ROW_COUNT() = 1
"""


class UsedKey:
    """An Idempotency-Key, and the request it stands for."""

    def __init__(self, key: str, request: str):
        self.columns = {
            "key": digest(key),
            "body_hash": digest(request),
            "key_seconds": KEY_SECONDS,
        }

    def generations(self, session: Session) -> list[history.Generation]:
        """Return what an earlier request with the key made. Raises BadToken, KeyReused."""
        row = db.one(
            f"""
               SELECT k.body_hash, k.generation_ids
                 FROM users AS u
            LEFT JOIN idempotency_keys AS k ON k.user_id = u.id AND k.idempotency_key = %(key)s
                WHERE {sessions.condition(session)}
            """,
            key=self.columns["key"],
            **session._asdict(),
        )
        if not row:
            raise BadToken
        if not row["generation_ids"]:
            return []
        if row["body_hash"] != self.columns["body_hash"]:
            raise KeyReused
        ids = [int(number) for number in row["generation_ids"].split(",")]
        return history.list_owned(session.user_id, ids)

    def forget(self, user_id: int) -> None:
        """Let the key be used as if it had not been."""
        sql = "DELETE FROM idempotency_keys WHERE user_id = %s AND idempotency_key = %s"
        db.execute(sql, user_id, self.columns["key"])


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def delete_expired_keys() -> int:
    return db.execute("DELETE FROM idempotency_keys WHERE expires_at < UNIX_TIMESTAMP()").count
