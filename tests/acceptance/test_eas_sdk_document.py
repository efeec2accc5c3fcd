"""The Python example of PAI-EAS's page "Access a queue service" does what that page says, with our address in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support import eas_sdk
from tests.support.clients import ROOT
from tests.support.installation import TOKEN, Installation
from tests.support.own_target import OwnTarget
from tests.support.server import RedisServer

EXAMPLE = (ROOT / "tests" / "clients" / "eas_document.py").read_text()
PLACEHOLDERS = {
    "182848887922****.cn-shanghai.pai-eas.aliyuncs.com": "127.0.0.1:{port}",
    "YmE3NDkyMzdiMzNmMGM3ZmE4ZmNjZDk0M2NiMDA3OTZmNzc1MT****==": TOKEN,
}
ANSWER = '[{"p_0":0.5224580736905329,"p_1":0.4775419263094671}]'


@pytest.fixture
def target() -> Iterator[OwnTarget]:
    made = OwnTarget()
    made.act = lambda call: (200, ANSWER.encode())
    yield made
    made.stop()


@pytest.mark.parametrize("committed_by", ["client", "server"])
def test_the_example_of_the_document_runs(server: RedisServer, target: OwnTarget, committed_by: str) -> None:
    with Installation(server.url, target.url) as installation:
        installation.web()
        installation.worker()
        text = EXAMPLE
        for placeholder, value in PLACEHOLDERS.items():
            assert placeholder in text
            text = text.replace(placeholder, value.format(port=installation.port))
        if committed_by == "server":
            text = text.replace("auto_commit=False", "auto_commit=True")

        done = eas_sdk.run(text, timeout_s=60)

        assert (done.returncode, done.stderr) == (0, "")
        printed = done.stdout.splitlines()
        receipts = [line.split() for line in printed if re.match(r"\d", line)]
        attributes = [ast.literal_eval(line) for line in printed if line.startswith("{")]
        assert [index for index, _ in receipts] == [str(n) for n in range(1, 11)]
        assert len({request_id for _, request_id in receipts}) == 10
        assert [found["meta.state"] for found in attributes] == ["Normal"] * 10
        assert all(type(value) is str for found in attributes for value in found.values())
        assert printed[20:] == [ANSWER] * 10
        with eas_sdk.Sdk(installation) as sdk:
            assert sdk.queue("qservice").length() == 0
            assert sdk.queue("qservice/sink").length() == 0
