"""One installation, one Node process, and the client in each of the ways that send it here."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.support.fal_js import FalJs, Node, is_installed
from tests.support.fal_place import Place, Stage, place
from tests.support.installation import TOKEN

WAYS = ("middleware", "fetch", "proxy", "tls")


@pytest.fixture(scope="session")
def the_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    assert is_installed(), "fal's JavaScript client is missing: `make test-js` installs it"
    with place(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture(scope="session")
def tls_url(the_place: Place) -> str:
    return the_place.second_web_with_tls()


@pytest.fixture(scope="session")
def node(the_place: Place) -> Iterator[Node]:
    with Node(FAL_KEY=TOKEN, NODE_EXTRA_CA_CERTS=str(the_place.certificate)) as made:
        yield made


@pytest.fixture
def stage(the_place: Place) -> Stage:
    return the_place.stage


@pytest.fixture(params=WAYS)
def fal(request: pytest.FixtureRequest, node: Node, the_place: Place) -> FalJs:
    if request.param == "tls":
        return FalJs(node, "middleware", request.getfixturevalue("tls_url"))
    return FalJs(node, request.param, the_place.url)


@pytest.fixture
def plain(node: Node, the_place: Place) -> FalJs:
    """Where the way makes no difference."""
    return FalJs(node, "middleware", the_place.url)


@pytest.fixture
def app(the_place: Place) -> Iterator[str]:
    """An endpoint id of the test's own: a service with one slot. Requests that still hold it go on at the end."""
    name = f"local/t{uuid.uuid4().hex[:12]}"
    yield name
    the_place.stage.release(name)
