"""The operator's command line: one file for each `flask NAME …`."""

from flask import Flask

from commands.audit import audit_group
from commands.database import db_group
from commands.engines import engines_group
from commands.invite import invite_group
from commands.jobs import jobs_group
from commands.mail import mail_group
from commands.queue import queue_group
from commands.storage import storage_group
from commands.user import user_group

GROUPS = [
    db_group,
    user_group,
    invite_group,
    mail_group,
    jobs_group,
    queue_group,
    engines_group,
    storage_group,
    audit_group,
]


def register(app: Flask) -> None:
    for group in GROUPS:
        app.cli.add_command(group)
