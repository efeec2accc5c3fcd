"""The project's worker with another time to wait for its watchdog (STALLED_S), or with the broker behind a URL of its
own (BROKER_URL_OF_TEST) and all taken away that would heal a lost connection: then the watchdog is what is left.

``celery -A tests.support.fragile_broker worker``
"""

from __future__ import annotations

import os

from eas_queue.worker import watchdog
from tasks import celery_app as celery_app

watchdog.STALLED_S = float(os.environ.get("STALLED_S", watchdog.STALLED_S))
if "BROKER_URL_OF_TEST" in os.environ:
    celery_app.conf.broker_url = os.environ["BROKER_URL_OF_TEST"]
    celery_app.conf.broker_connection_retry = False
    celery_app.conf.broker_transport_options = {
        "queue_order_strategy": celery_app.conf.broker_transport_options["queue_order_strategy"],
        "health_check_interval": 86_400,  # 0 would be a timer that never rests
    }
