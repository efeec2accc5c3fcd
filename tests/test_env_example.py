""".env.example lists every setting with its default and its help line, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import config

LINES = (Path(__file__).parents[1] / ".env.example").read_text().splitlines()
SETTING = re.compile(r"# ([A-Z_]+)=(.*)")
SHOWN = {found[1]: (LINES[i - 1], found[2]) for i, line in enumerate(LINES) if (found := SETTING.fullmatch(line))}


def test_every_setting_is_listed_once_and_no_other() -> None:
    listed = [found[1] for line in LINES if (found := SETTING.fullmatch(line))]

    assert sorted(listed) == sorted(name.upper() for name in config.Settings.model_fields)


def shown(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def test_each_shows_its_default() -> None:
    defaults = {
        name.upper(): "" if field.default is None else shown(field.default)
        for name, field in config.Settings.model_fields.items()
    }

    assert {name: value for name, (_, value) in SHOWN.items()} == defaults


def test_above_each_stands_its_help_line() -> None:
    descriptions = {name.upper(): f"# {field.description}" for name, field in config.Settings.model_fields.items()}

    assert {name: above for name, (above, _) in SHOWN.items()} == descriptions


def test_nothing_is_set_until_somebody_takes_the_comment_sign_off() -> None:
    assert [line for line in LINES if line and not line.startswith("#")] == []


def test_taking_all_comment_signs_off_changes_nothing(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("\n".join(line.removeprefix("# ") for line in LINES if SETTING.fullmatch(line)))

    assert config.Settings(_env_file=env) == config.Settings(_env_file=None)
