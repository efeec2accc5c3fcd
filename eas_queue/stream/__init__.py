"""`eas-queue stream`: a queue service of PAI-EAS from a terminal, in the shape of `eascmd stream`.

A client like any other: it speaks the public HTTP and WebSocket API of a queue's URL, whoever serves it, and nothing
here imports the rest of the project. Besides Python it needs click, requests and websocket-client, so
`python -m eas_queue.stream` also works where only these are installed.
"""
