"""The route table: which role opens which route, as PROTOCOL.md says, and that no route is open by accident."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eas_queue.dialects import native
from tests.support.front import LIMITED_TOKEN, ROLE_TOKENS, Front, assert_problem
from tests.support.installation import TOKEN

TEXT = Path(native.__file__).with_name("PROTOCOL.md").read_text()
UNKNOWN_ID = "0001aaaa-bbbb-8ccc-9ddd-eeeeeeeeeeee"
ROUTES = re.findall(r"^\| `([A-Z]+) (/\S+)` \| (\w+) \|", TEXT, re.M)
WITH_A_ROLE = [(method, path, role) for method, path, role in ROUTES if role in ROLE_TOKENS]


def concrete(path: str, service: str = "demo") -> str:
    return path.replace("<service>", service).replace("<request_id>", UNKNOWN_ID).replace("<path>", "sub")


def test_the_table_is_read() -> None:
    assert len(WITH_A_ROLE) >= 14
    assert {role for _, _, role in ROUTES} == {"submit", "read", "admin", "target", "anybody"}


@pytest.mark.parametrize(("method", "path", "role"), WITH_A_ROLE)
def test_a_route_opens_to_its_role_only(front: Front, method: str, path: str, role: str) -> None:
    for holder, token in ROLE_TOKENS.items():
        answer = front.call(method, concrete(path), b"{}", token=token)
        if holder == role:
            assert answer.status not in (401, 403), (holder, answer.body)
        else:
            assert_problem(answer, 403, "forbidden")
    front.call("POST", "/api/services/demo/resume")


@pytest.mark.parametrize(("method", "path", "role"), WITH_A_ROLE)
def test_a_route_is_closed_to_unknown_tokens_and_other_services(
    front: Front, method: str, path: str, role: str
) -> None:
    assert_problem(front.call(method, concrete(path), b"{}", token=None), 401, "unauthorized")
    assert_problem(front.call(method, concrete(path), b"{}", token="unknown-token-of-nobody"), 401, "unauthorized")
    query = f"?token={TOKEN}&api_key={TOKEN}&access_token={TOKEN}"
    assert_problem(front.call(method, concrete(path) + query, b"{}", token=None), 401, "unauthorized")
    assert_problem(front.call(method, concrete(path, "other"), b"{}", token=LIMITED_TOKEN), 403, "forbidden")
