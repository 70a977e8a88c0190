"""SQL of `trashed_files`: stored files that nobody gets, because their image is in the trash."""

import db

# Belongs into the statement that finds out who asks for the file.
IS_WITHHELD = "EXISTS (SELECT 1 FROM trashed_files AS f WHERE f.file_key = %(file_key)s)"


def is_withheld(file_key: str) -> bool:
    return bool(db.value(f"SELECT {IS_WITHHELD}", file_key=file_key))


def withhold(user_id: int, generation_id: int, keys: list[str]) -> None:
    for key in keys:
        db.execute(
            """
            INSERT INTO trashed_files (file_key, generation_id, user_id)
            VALUES (%s, %s, %s)
                ON DUPLICATE KEY UPDATE generation_id = generation_id
            """,
            key,
            generation_id,
            user_id,
        )


def forget(generation_ids: list[int]) -> None:
    """Withhold the files of generations no longer: they are restored, or gone."""
    db.execute(
        f"""
        DELETE FROM trashed_files
         WHERE generation_id IN ({db.placeholders(generation_ids)})
        """,
        *generation_ids,
    )


def forget_keys(keys: list[str]) -> None:
    """Do the same with files, which another generation in the trash may have, too."""
    for key in keys:
        db.execute("DELETE FROM trashed_files WHERE file_key = %s", key)
