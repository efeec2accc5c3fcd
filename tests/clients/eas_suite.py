"""Runs the test suite that eas_prediction brings along, as it is but for the server that it asks."""

from __future__ import annotations

import sys
import time
import unittest
from typing import Any

from eas_prediction import test_queue_client as suite

from tests.clients.eas_common import parser, say

options = parser(__doc__).parse_args()
suite.QueueEndpoint = options.endpoint
suite.QueueToken = options.token
suite.QueueName = options.queue
suite.SinkQueueName = f"{options.queue}/sink"


class Told(unittest.TextTestResult):
    """Says what becomes of each test."""

    def startTest(self, test: Any) -> None:
        self._began = time.monotonic()
        self._told = False
        say(begins=test.id().rpartition(".")[2])
        super().startTest(test)

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        detail = next((text for failed, text in [*self.failures, *self.errors] if failed is test), "")
        say(ended=test.id().rpartition(".")[2], detail=detail, elapsed_s=time.monotonic() - self._began)


tests = unittest.defaultTestLoader.loadTestsFromModule(suite)
result = Told(sys.stderr, descriptions=False, verbosity=0)  # type: ignore[arg-type]  # nothing of it is printed
tests.run(result)
say(all=result.testsRun)
