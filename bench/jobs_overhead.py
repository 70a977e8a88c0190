"""Print the milliseconds that taking and finishing one job costs, the drawing left out. Run by run.py."""

import time
from statistics import median

import config
import db
from engines import ImageRequest, painter
from images import jobs
from validation import GenerateInput

JOBS = 200

config.load()
config.settings.MAX_ACTIVE_JOBS = config.settings.MAX_QUEUE = config.settings.DAILY_IMAGES = 10**6
image = painter.make(ImageRequest("a fox", width=64, height=64, steps=1))
painter.make = lambda job, on_progress: image
for number in range(JOBS):
    jobs.submit({"id": number % 20 + 1, "token_version": 0}, GenerateInput(prompt="a fox"))
spent = []
for _ in range(JOBS):
    started = time.perf_counter()
    jobs.run(jobs.acquire(["test_model"]))
    spent.append((time.perf_counter() - started) * 1000)
db.execute("DELETE FROM image_generations WHERE model = 'test_model'")
print(median(spent))
