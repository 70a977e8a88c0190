"""What users ask for and get.

The life of a generation, which is one row of `image_generations` and nothing else:

    submit.py    reserves a place in the user's quota and inserts the row: `pending`
    jobs.py      acquire() claims the pending row whose turn it is for one worker: `processing`,
                 with a lease, a deadline and a claim, a token that no other worker has
                 run() has the engine make the picture, while worker.py renews the lease
                 results.py processes the picture and stores its files
                 complete() records the result in one UPDATE guarded by the claim: `completed`
                 fail() records why there is no image: `failed`, and refunds the quota
    gallery.py   the owner cancels it (`canceled`, refunded), marks, retries or deletes it

Every write of a worker is guarded by its claim: whoever lost it, to a cancel, a delete or another
worker, changes nothing. sweep() returns the jobs of workers that died to the queue.
"""

PENDING = "pending"
PROCESSING = "processing"
COMPLETED = "completed"
FAILED = "failed"
CANCELED = "canceled"
UNFINISHED = (PENDING, PROCESSING)
STATUSES = (PENDING, PROCESSING, COMPLETED, FAILED, CANCELED)
