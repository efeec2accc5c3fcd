"""Every command of "Access a queue service by eascmd" (Alibaba Cloud, PAI, "Access a queue service", 2026-04-01) on a
real installation, in the document's order, and its output: byte for byte but for ids, times and our numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from tests.support.installation import ROOT, TOKEN, Installation, await_condition
from tests.support.server import RedisServer
from tests.support.target_client import Target
from tests.support.typed import Terminal

_CHANGING = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\b1\d{12}\b", "TIME"),
    (r"\d+(\.\d+)?(µs|ms|s)\b", "DURATION"),
    (r"^I\d{4} \d\d:\d\d:\d\d\.\d{6} [ \d]{6}\d \w+\.(go|py):\d+\]", "LOG"),
)


def form(text: str) -> str:
    for pattern, name in _CHANGING:
        text = re.sub(pattern, name, text, flags=re.M)
    return text


class Shell:
    """A terminal in which only the environment tells the token."""

    def __init__(self, installation: Installation) -> None:
        self.url = f"{installation.url}/api/predict/qservice"
        self._env = installation.env | {"HOME": str(installation.folder)}
        self.folder = installation.folder

    def start(self, line: str) -> Terminal:
        return Terminal([str(ROOT / "eas-queue"), *line.split()], cwd=self.folder, env=self._env)

    def shows(self, line: str, expected: str, *, typed: Sequence[tuple[str, str]] = (), code: int = 0) -> str:
        """*typed*: the question, and the keys for it. Returns what was shown."""
        with self.start(line) as terminal:
            for question, keys in typed:
                terminal.await_text(question)
                terminal.type(keys)
            assert terminal.end() == code, terminal.text
            shown = terminal.text
        assert form(shown) == form(expected.removeprefix("\n"))
        assert TOKEN not in shown
        return shown


def length(installation: Installation, queue: str = "") -> int:
    response = installation.session.get(f"{installation.url}/api/predict/qservice{queue}?_attrs_=true", timeout=10)
    return int(response.json()["stream.length"])


@pytest.fixture
def installation(server: RedisServer, target: Target) -> Iterator[Installation]:
    answers = f"{target.url}/?content_type=text/plain%3B%20charset%3Dutf-8&body_bytes=5"
    services = f'[services]\nqservice = {{ target_url = "{answers}", max_concurrency = 1 }}\n'
    with Installation(server.url, target.url, services_toml=services, MAX_PAYLOAD_BYTES=8192) as made:
        made.web("-w", "2", "-b", f"127.0.0.1:{made.port}")
        made.worker()
        yield made


def test_the_commands_of_the_document_in_its_order(installation: Installation) -> None:
    shell = Shell(installation)
    installation.set_paused("qservice", True)  # else its worker takes the items: "Important" in the document

    (installation.folder / "token").write_text(TOKEN)
    shell.shows(
        f"stream config --url={shell.url} --token-file=token",
        f"[OK] stored in {installation.folder}/.config/eas_queue/stream.toml\n",
    )

    shown = shell.shows(
        "stream info",
        """
[OK] Attributes:
consumers.list.[0] : Id: qservice.forwarder, Index: 0, Pending: 0, Status: Running, Idle: 0s, Window: 1, Slots: 1, AutoCommit: false
consumers.stats.total : 1
consumers.status.total : 1
groups.list.[0] : Id: qservice, Index: 0, Pending: 0, Delivered: 0, Consumers: 1
meta.backend : redis
meta.header.group : X-EAS-QueueService-Gid
meta.header.groupIdentifyHeader : X-EAS-QueueService-Gid
meta.header.priority : X-EAS-QueueService-Priority
meta.header.user : X-EAS-QueueService-Uid
meta.header.userIdentifyHeader : X-EAS-QueueService-Uid
meta.maxPayloadBytes : 8192
meta.name : qservice
meta.state : Normal
stream.approxMaxLength : 100000
stream.firstEntry : 0
stream.lastEntry : 0
stream.length : 0
stream.maxPayloadBytes : 8192
""",  # noqa: E501
    )
    assert shown.splitlines()[1:] == sorted(shown.splitlines()[1:])

    shell.shows(
        "stream put -d 10s",
        """
[OK] 1
[INFO] Put data done.
Total time cost: 401.892141ms
Total size: 3.00 B
Total: 1, success: 1, failed: 0
""",
    )

    (installation.folder / "test.data").write_text("data2\nOK\ndata4\ndata5\ndata6\n")
    shell.shows(
        "stream put -f test.data",
        """
[INFO] Opening data file: test.data
[OK] 2
[OK] 3
[OK] 4
[OK] 5
[OK] 6
[INFO] Put data done.
Total time cost: 401.892141ms
Total size: 22.00 B
Total: 5, success: 5, failed: 0
""",
    )

    shown = shell.shows(
        "stream get -l10 --timeout=3s",
        """
[OK] [0 - 1] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=e47b76e2-2648-40fe-9197-a268015cbd1f ts@source=1685802680575] 10s
[OK] [1 - 2] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=51d13952-6ba3-4d52-b548-e58837675c7a ts@source=1685807531686] data2
[OK] [2 - 3] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=ef6940e3-159c-45f3-a96d-bc0acd71275f ts@source=1685807531701] OK
[OK] [3 - 4] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=ef6940e3-159c-45f3-a96d-bc0acd71275f ts@source=1685807531701] data4
[OK] [4 - 5] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=ef6940e3-159c-45f3-a96d-bc0acd71275f ts@source=1685807531701] data5
[OK] [5 - 6] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=ef6940e3-159c-45f3-a96d-bc0acd71275f ts@source=1685807531701] data6
""",  # noqa: E501
    )
    third = shown.splitlines()[2].partition("requestId=")[2].partition(" ")[0]

    shell.shows(
        f"stream get --tags requestId={third}",
        """
[OK] [0 - 3] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=ef6940e3-159c-45f3-a96d-bc0acd71275f ts@source=1685807531701] OK
""",  # noqa: E501
    )

    shell.shows(
        "stream delete 3",
        """
Deleting index(es):
3 [y/N]y
[OK] deleted
""",
        typed=[("3 [y/N]", "y\n")],
    )

    shell.shows(
        "stream trunc 4",
        """
trunc stream from index: 4 [y/N]y
[OK] truncated
""",
        typed=[("4 [y/N]", "y\n")],
    )
    assert length(installation) == 3

    installation.set_paused("qservice", False)
    await_condition(lambda: length(installation, "/sink") == 3, what="the results are in the sink")

    with shell.start("stream watch -k") as terminal:
        for question, keys in (("commit: 1 ? [Y/n]", "y\n"), ("commit: 2 ? [Y/n]", "n\n")):
            terminal.await_text(question)
            terminal.type(keys)
        terminal.await_text("negative: 2 ? [Y/n]")
        shown = terminal.text
        terminal.type("y\n")
        terminal.await_text("commit: 3 ? [Y/n]")
        terminal.type("\x03")  # before it reads, as nobody is that fast: it must count all the same
        assert terminal.end() == 0
    assert form(shown) == form(
        """[INFO] Start to watch: index: 0, indexOnly: false, autoCommit: false, window: 10
I0604 09:20:45.211243   66197 queue.go:532] watch via websocket
[OK] [0 - 1] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=2a5645b6-9ee5-4026-bdee-fab31e435934 ts@sink=1685807531718 ts@source=1685807531715] xxxxx
commit: 1 ? [Y/n]y
[OK] [1 - 2] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=2a5645b6-9ee5-4026-bdee-fab31e435934 ts@sink=1685807531718 ts@source=1685807531715] xxxxx
commit: 2 ? [Y/n]n
negative: 2 ? [Y/n]"""  # noqa: E501
    )
    assert length(installation, "/sink") == 2

    with shell.start("stream watch -k --auto-commit") as terminal:
        terminal.await_text("] xxxxx\n", times=2)  # each is committed when it is delivered, and shown after that
        await_condition(lambda: length(installation, "/sink") == 0, what="the rest is committed")
        terminal.type("\x03")
        assert terminal.end() == 0
        shown = terminal.text
    assert form(shown.partition("^C")[0]) == form(
        """[INFO] Start to watch: index: 0, indexOnly: false, autoCommit: true, window: 10
I0604 09:30:08.554542   66408 queue.go:532] watch via websocket
[OK] [0 - 2] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=64ba6aaf-49b0-45c7-8d79-6cf6dc1065d0 ts@sink=1685807531733 ts@source=1685807531730] xxxxx
[OK] [1 - 3] tags[Header:Content-Type=text/plain; charset=utf-8 requestId=5825dd3e-a5e2-4754-a946-96e068d643c8 ts@sink=1685807531771 ts@source=1685807531768] xxxxx
"""  # noqa: E501
    )

    with shell.start("stream help") as terminal:
        assert terminal.end() == 0
        assert "Commands:\n  config " in terminal.text
