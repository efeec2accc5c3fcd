"""`python -m eas_queue.pull`: the same command where the server's packages are not installed."""

from eas_queue.pull.command import pull_command

if __name__ == "__main__":
    pull_command(prog_name="pull")
