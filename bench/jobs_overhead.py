"""Print the milliseconds it costs to acquire and finish a job whose picture costs nothing.

Run by run.py, in the environment of its database.
"""

import time
from statistics import median

import config
import db
from accounts.tokens import Session
from engines import ImageRequest, painter
from images import jobs
from images.schemas import GenerateInput
from images.submit import submit

JOBS = 200
USERS = 20

config.load()
config.settings.MAX_ACTIVE_JOBS = 10**6
config.settings.MAX_QUEUE = 10**6
config.settings.DAILY_IMAGES = 10**6
config.settings.SUBMITS_PER_MINUTE = 10**6

generated = painter.make(ImageRequest("a fox", width=64, height=64, steps=1))
painter.make = lambda request, on_progress: generated

for number in range(JOBS):
    session = Session(user_id=number % USERS + 1, token_version=0)
    submit(session, GenerateInput(prompt="a fox"))

spent = []
for _ in range(JOBS):
    started = time.perf_counter()
    jobs.run(jobs.acquire(["test_model"]))
    spent.append((time.perf_counter() - started) * 1000)

db.execute("DELETE FROM image_generations WHERE model = 'test_model'")
print(median(spent))
