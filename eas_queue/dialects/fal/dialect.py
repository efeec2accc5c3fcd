"""The fal dialect put together."""

from __future__ import annotations

from eas_queue.auth import Access
from eas_queue.dialects.dialect import Dialect
from eas_queue.dialects.fal import entrance, routes
from eas_queue.engine.engine import Engine


def dialect(
    engine: Engine, access: Access, *, base_url: str, max_wait_s: float, queue_host: str = "", run_host: str = ""
) -> Dialect:
    """*base_url* '': links begin as each request was sent. *max_wait_s*: the longest call of the synchronous host.

    *queue_host*, *run_host*: names under which its two hosts are reached without a prefix, '' none.
    """
    return Dialect(
        (entrance.INNER,),
        (routes.blueprint(engine, access, max_wait_s=max_wait_s),),
        routes.render_error,
        entrance.claiming(entrance.Hosts(queue_host, run_host), base_url),
    )
