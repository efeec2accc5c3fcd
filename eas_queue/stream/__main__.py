"""`python -m eas_queue.stream`: the same commands where the server's packages are not installed."""

from eas_queue.stream.group import stream

if __name__ == "__main__":
    stream(prog_name="stream")
