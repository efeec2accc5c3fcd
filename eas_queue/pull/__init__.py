"""`eas-queue pull`: a worker that fetches its tasks from a queue over HTTP, and so may stand behind any NAT.

It takes as many as it has room for, calls a local URL or a Python function, renews what runs, and completes it. A
client like any other: it speaks the take API, and nothing here imports the rest of the project. Besides Python it needs
click and requests, so `python -m eas_queue.pull` also works where only these are installed.
"""
