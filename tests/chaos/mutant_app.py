"""The product's entry points with the mutant that CHAOS_MUTANT names.

``celery -A tests.chaos.mutant_app:celery_app worker``, ``gunicorn tests.chaos.mutant_app:app``
"""

from __future__ import annotations

import os

from flask import Flask

from tests.chaos.mutants import MUTANTS

MUTANTS[os.environ["CHAOS_MUTANT"]].apply()

from app import celery_app as celery_app  # noqa: E402  it loads the scripts


def __getattr__(name: str) -> Flask:
    if name != "app":
        raise AttributeError(name)
    import app

    made: Flask = app.app
    return made
