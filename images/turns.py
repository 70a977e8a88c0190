"""SQL of `turns`: what one worker does for all, once in a while."""

import db

# A turn that seems to be taken in the future was taken while the database's clock was wrong.
TAKE = """
    UPDATE turns
       SET taken_at = UNIX_TIMESTAMP()
     WHERE name = %(turn)s
       AND (taken_at <= UNIX_TIMESTAMP() - %(seconds)s OR taken_at > UNIX_TIMESTAMP())
"""


def take(turn: str, seconds: int) -> bool:
    """Take a turn. Tells if it is this worker's: nobody has taken it for so many seconds."""
    return db.execute(TAKE, turn=turn, seconds=seconds).count > 0
