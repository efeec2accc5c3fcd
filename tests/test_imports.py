"""The law of the house: imports run one way, and three things stand in one place only."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("eas_queue", "tests", "examples", "benchmarks")
# run and ready start before settings exist; cli asks about the terminal (NO_COLOR, TERM); pull, which may be on another
# host, has none, and takes its token from there
SETTINGS_READERS = {
    "config.py",
    "eas_queue/run.py",
    "eas_queue/ready.py",
    "eas_queue/cli.py",
    "eas_queue/pull/command.py",
}
KEYS = "eas_queue/store/keys.py"
SDK_COPIES = "tests/clients/tinker_calls.py"  # the SDK's clients copy themselves so
WEB_FRAMEWORK = ("flask", "werkzeug")


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Every Python file of the project by its path from the root."""
    paths = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), str(path)) for path in paths}


def imports(path: str) -> Iterator[str]:
    """Dotted names of all that *path* imports, also inside functions; `from a import b` gives a.b."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(sources()[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offenders(under: str, *forbidden: str, allowed: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{path} imports {name}"
        for path in sources()
        if path.startswith(under)
        for name in imports(path)
        if is_in(name, *forbidden) and not is_in(name, *allowed)
    ]


def strings(path: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string literal that is no docstring; of f-strings their literal parts."""
    tree = sources()[path]
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in docstrings:
            yield node.lineno, node.value if isinstance(node.value, str) else node.value.decode("latin-1")


def test_the_files_are_found() -> None:
    assert {"app.py", "tasks.py", "config.py", KEYS, "tests/test_imports.py"} <= set(sources())
    assert "eas_queue.store.keys" in set(imports("tasks.py"))


def test_the_store_imports_nothing_of_the_project_but_itself() -> None:
    assert offenders("eas_queue/store/", "eas_queue", allowed=("eas_queue.store",)) == []
    assert offenders("eas_queue/store/", "config", "app", "tasks", "celery", *WEB_FRAMEWORK) == []


def test_adapters_import_nothing_of_the_project_but_themselves_and_do_nothing_but_translate() -> None:
    assert offenders("eas_queue/adapters/", "eas_queue", allowed=("eas_queue.adapters",)) == []
    outside = ("config", "app", "tasks", "redis", "celery", "requests", "urllib", "socket", *WEB_FRAMEWORK)
    assert offenders("eas_queue/adapters/", *outside) == []


def test_the_engine_knows_no_dialect_worker_or_web_framework() -> None:
    allowed = ("eas_queue.engine", "eas_queue.store", "eas_queue.adapters")

    assert offenders("eas_queue/engine/", "eas_queue", allowed=allowed) == []
    assert offenders("eas_queue/engine/", "config", "app", "tasks", "celery", "requests", *WEB_FRAMEWORK) == []


def test_the_worker_and_the_forwarder_know_no_dialect_or_web_framework() -> None:
    for under in ("eas_queue/worker/", "eas_queue/forward.py"):
        assert offenders(under, "eas_queue.dialects", "eas_queue.auth", "eas_queue.web", "config", "app", "tasks") == []
        assert offenders(under, *WEB_FRAMEWORK) == []


def test_the_webhooks_know_no_dialect_worker_or_web_framework() -> None:
    allowed = ("eas_queue.webhooks", "eas_queue.engine", "eas_queue.store")

    assert offenders("eas_queue/webhooks/", "eas_queue", allowed=allowed) == []
    assert offenders("eas_queue/webhooks/", "config", "app", "tasks", "celery", "requests.api", *WEB_FRAMEWORK) == []


def test_dialects_see_the_engine_and_access_but_neither_the_store_nor_the_worker() -> None:
    forbidden = ("eas_queue.store", "eas_queue.worker", "eas_queue.forward", "eas_queue.web", "redis", "celery")

    assert offenders("eas_queue/dialects/", *forbidden) == []
    assert offenders("eas_queue/dialects/", "config", "app", "tasks") == []


def test_dialects_do_not_see_each_other() -> None:
    folders = [path.name for path in (ROOT / "eas_queue/dialects").iterdir() if (path / "__init__.py").is_file()]

    assert "native" in folders
    for folder in folders:
        others = [f"eas_queue.dialects.{other}" for other in folders if other != folder]
        assert offenders(f"eas_queue/dialects/{folder}/", *others) == []
        shared = [path for path in sources() if path.startswith("eas_queue/dialects/") and path.count("/") == 2]
        assert [each for path in shared for each in offenders(path, f"eas_queue.dialects.{folder}")] == []


def test_the_client_of_a_queue_imports_nothing_of_the_project_but_itself() -> None:
    assert offenders("eas_queue/stream/", "eas_queue", allowed=("eas_queue.stream",)) == []
    assert offenders("eas_queue/stream/", "config", "app", "tasks", "redis", "celery", *WEB_FRAMEWORK) == []


def test_the_worker_that_pulls_imports_nothing_of_the_project_but_itself() -> None:
    assert offenders("eas_queue/pull/", "eas_queue", allowed=("eas_queue.pull",)) == []
    assert offenders("eas_queue/pull/", "config", "app", "tasks", "redis", "celery", *WEB_FRAMEWORK) == []


def test_nothing_inside_imports_the_entry_points() -> None:
    # commands beside app and tasks: they read settings
    entry_points = {"eas_queue/run.py", "eas_queue/ready.py"}
    entry_points |= {"eas_queue/doctor/__init__.py", "eas_queue/doctor/settings.py"}
    inside = [path for path in sources() if path.startswith("eas_queue/") and path not in entry_points]

    assert [each for path in inside for each in offenders(path, "app", "tasks", "config", "tests", "examples")] == []


def test_only_config_reads_settings_from_the_environment() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in sources().items()
        if path not in SETTINGS_READERS and not path.startswith(("tests/", "examples/", "benchmarks/"))
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        and not ast.unparse(node).startswith("request.")  # WSGI's
    ]

    assert found == []
    assert offenders("eas_queue/", "os.environ", "os.environb", "os.getenv") == []


@pytest.mark.parametrize("prefix", ["eas:", "celery-task-meta-"])
def test_no_other_module_spells_a_key(prefix: str) -> None:
    found = [
        f"{path}:{line} {text[:60]!r}"
        for path in sources()
        if path not in (KEYS, "tests/test_imports.py")
        for line, text in strings(path)
        if text.startswith(prefix)
    ]

    assert found == []
    assert any(text.startswith(prefix) for _, text in strings(KEYS))


def test_the_scripts_spell_no_key_either() -> None:
    found = [
        f"{path.name}:{number}"
        for path in (ROOT / "eas_queue/store/lua").rglob("*.lua")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "'eas:" in line or '"eas:' in line or "celery-task-meta-" in line
    ]

    assert found == []


def test_nothing_is_pickled() -> None:
    found = offenders("", "pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve")
    assert [each for each in found if not each.startswith(f"{SDK_COPIES} ")] == []
    assert [
        f"{path}:{line}"
        for path in sources()
        if path not in ("tests/test_imports.py", SDK_COPIES)
        for line, text in strings(path)
        if "pickle" in text.lower()
    ] == []


def test_an_import_inside_a_function_or_by_a_relative_name_is_seen_too(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def f():\n    from ..store import keys\n    import redis.client"
    monkeypatch.setitem(sources(), "eas_queue/dialects/made_up.py", ast.parse(code))

    assert list(imports("eas_queue/dialects/made_up.py")) == ["eas_queue.store.keys", "redis.client"]
    assert len(offenders("eas_queue/dialects/", "eas_queue.store", "redis")) == 2


def test_gunicorns_master_imports_nothing_that_gevent_has_to_patch_first() -> None:
    code = "import config, eas_queue.reload, sys; print([m for m in ('redis', 'urllib3', 'flask') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
