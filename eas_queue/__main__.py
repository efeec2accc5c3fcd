"""`python -m eas_queue`, which `./eas-queue` runs."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  who runs it with another python3 should read why, not a traceback
    sys.exit("eas-queue needs Python 3.11 or later; `make run` makes .venv with one")
try:
    from eas_queue.cli import main
except ModuleNotFoundError as exc:
    sys.exit(
        f"eas-queue: the package {exc.name} is not installed for {sys.executable}: `make run` installs all into .venv"
    )

if __name__ == "__main__":
    main(prog_name="eas-queue")
