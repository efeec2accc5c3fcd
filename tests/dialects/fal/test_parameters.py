"""What is too large, or comes too often, for a whole installation to be asked."""

from __future__ import annotations

import pytest
from flask import Flask, request

from eas_queue.dialects.fal.names import Endpoint
from eas_queue.dialects.fal.parameters import CHECKED_VALUES_MOST, submission
from eas_queue.engine import errors
from eas_queue.engine.request import Caller, Submission


def submitted(body: bytes = b"{}", **headers: str) -> Submission:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with Flask("eas_queue").test_request_context(method="POST", data=body, headers=named):
        return submission(request, Endpoint("acme/demo", ""), Caller())


@pytest.mark.parametrize("value", [b"1,", b"[],", b"{},"])
def test_of_very_many_values_the_target_tells_whether_they_are_json(value: bytes) -> None:
    few, many = b"[" + value * 100, b"[" + value * CHECKED_VALUES_MOST

    assert submitted(many, Content_Type="application/json").body == many
    with pytest.raises(errors.InvalidRequest):
        submitted(few, Content_Type="application/json")


def test_a_number_of_many_digits_is_json() -> None:
    assert submitted(b"9" * 10_000).body == b"9" * 10_000


@pytest.mark.parametrize(
    ("value", "is_brief"), [("0", True), ("0,0", True), ("1, 0", True), ("1,1", False), ("", False)]
)
def test_a_header_that_was_sent_twice_counts(value: str, is_brief: bool) -> None:
    assert (submitted(X_Fal_Store_IO=value).brief_s is not None) == is_brief


@pytest.mark.parametrize(("value", "is_said"), [("1", True), ("1,1", True), ("no, Yes", True), ("0,0", False)])
def test_so_does_no_retry(value: str, is_said: bool) -> None:
    assert (submitted(X_Fal_No_Retry=value).retries is not None) == is_said
