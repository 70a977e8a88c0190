"""The operator's command line: one file for each `flask NAME …`."""

from flask import Flask

from commands.database import db_group
from commands.engines import engines_group
from commands.jobs import jobs_group
from commands.mail import mail_group
from commands.user import user_group

GROUPS = [db_group, user_group, jobs_group, engines_group, mail_group]


def register(app: Flask) -> None:
    for group in GROUPS:
        app.cli.add_command(group)
