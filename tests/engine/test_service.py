from __future__ import annotations

from typing import Any, get_args

import pydantic
import pytest

from eas_queue import adapters
from eas_queue.engine import errors
from eas_queue.engine.service import Service, Services, ServiceSettings


def services(*, allow_unlisted: bool, **listed: ServiceSettings) -> Services:
    defaults = ServiceSettings(target_url="http://t/{service}/{path}", timeout_s=7)
    return Services(listed, defaults, allow_unlisted=allow_unlisted, result_ttl_s=60)


def service(target_url: str) -> Service:
    return Service(name="s", result_ttl_s=60, target_url=target_url)


# ------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["a", "7", "a.b-c_D", "a" * 128, "defaults", "a..b", "sink"])
def test_names_of_letters_digits_dots_dashes_and_underscores_are_services(name: str) -> None:
    found = services(allow_unlisted=True).get(name)

    assert (found.name, found.timeout_s, found.result_ttl_s) == (name, 7, 60)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-a",
        "_a",
        ".a",
        "a/b",
        "a b",
        "a\n",
        "a\r\nb",
        "a\0",
        "a{b}",
        "a}:b",
        "é",
        "٣",
        "a" * 129,
        "a%2Fb",
    ],
)
@pytest.mark.parametrize("allow_unlisted", [True, False])
def test_any_other_name_is_an_invalid_request(name: str, allow_unlisted: bool) -> None:
    with pytest.raises(errors.InvalidRequest, match="is not a service name"):
        services(allow_unlisted=allow_unlisted).get(name)


def test_a_very_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        services(allow_unlisted=True).get("x" * 100_000)

    assert len(str(caught.value)) < 400


# ---------------------------------------------------------------------------------------------------- listed or not


def test_an_unlisted_service_is_not_found_where_only_listed_ones_are_served() -> None:
    found = services(allow_unlisted=False, known=ServiceSettings(max_concurrency=3))

    assert found.get("known").max_concurrency == 3
    with pytest.raises(errors.ServiceNotFound) as caught:
        found.get("other")
    assert caught.value.service == "other"


def test_a_listed_service_has_its_own_settings_and_an_unlisted_one_the_defaults() -> None:
    found = services(allow_unlisted=True, known=ServiceSettings(timeout_s=3))

    assert (found.get("known").timeout_s, found.get("other").timeout_s) == (3, 7)
    assert [each.name for each in found] == ["known"]


def test_more_unlisted_services_than_are_remembered_are_all_served() -> None:
    found = services(allow_unlisted=True)

    assert all(found.get(f"s{number}").name == f"s{number}" for number in range(3_000))


# ------------------------------------------------------------------------------------------------------------ aliases


@pytest.mark.parametrize(
    "alias",
    [
        "demo",
        "acme/demo",
        "workflows/acme/demo",
        "1714827/joke",
        "Qwen/Qwen3-0.6B",
        "a" * 128,
        "openai/gpt-oss-20b:peft:131072",
    ],
)
def test_an_alias_is_one_to_three_names_joined_by_slashes(alias: str) -> None:
    found = services(allow_unlisted=False, sentiment=ServiceSettings(aliases=(alias,)))

    assert found.get(found.name_of(alias)).name == "sentiment"


@pytest.mark.parametrize(
    "alias",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "a/b/c/d",
        "a b/c",
        "a/b\n",
        "-a/b",
        "a/.b",
        "a/../b",
        "é/b",
        "a/b?c",
        "a" * 129,
        "a%2Fb",
        ":a/b",
        "a:/b/",
    ],
)
def test_anything_else_is_none(alias: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="one to three names joined by /"):
        ServiceSettings(aliases=(alias,))


def test_two_services_can_not_have_the_same_and_one_may_say_it_twice() -> None:
    with pytest.raises(ValueError, match="'acme/demo' is that of two services, one and two"):
        services(
            allow_unlisted=False,
            one=ServiceSettings(aliases=("acme/demo",)),
            two=ServiceSettings(aliases=("acme/other", "acme/demo")),
        )

    twice = services(allow_unlisted=False, one=ServiceSettings(aliases=("acme/demo", "acme/demo")))
    assert twice.name_of("acme/demo") == "one"


def test_without_an_alias_slashes_are_dots() -> None:
    found = services(allow_unlisted=False, sentiment=ServiceSettings(aliases=("acme/demo",)))

    assert found.name_of("acme/other") == "acme.other"
    assert found.name_of("workflows/acme/demo") == "workflows.acme.demo"
    assert found.name_of("sentiment") == "sentiment"
    with pytest.raises(errors.ServiceNotFound):
        found.get(found.name_of("acme/other"))
    assert services(allow_unlisted=True).get("acme.other").name == "acme.other"


def test_an_alias_goes_before_a_service_of_that_name() -> None:
    found = services(
        allow_unlisted=False, **{"acme.demo": ServiceSettings(), "sentiment": ServiceSettings(aliases=("acme/demo",))}
    )

    assert found.name_of("acme/demo") == "sentiment"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("run/sampler_weights/000100", "exact"),
        ("run/sampler_weights/000200", "part"),
        ("run/sampler_weights/000100/more/of/it", "exact"),
        ("run/other", "run"),
        ("run", "run"),
        ("named/weights/1", "named"),
        ("unknown/weights/1", "unknown"),
        ("", ""),
        ("/", ""),
        ("run//", "run"),
    ],
)
def test_a_path_is_that_of_the_longest_alias_it_begins_with(path: str, expected: str) -> None:
    found = services(
        allow_unlisted=False,
        exact=ServiceSettings(aliases=("run/sampler_weights/000100",)),
        part=ServiceSettings(aliases=("run/sampler_weights",)),
        named=ServiceSettings(),
    )

    assert found.name_of_path(path) == expected


def test_outside_a_service_is_called_by_its_aliases_else_by_its_name() -> None:
    found = services(allow_unlisted=True, one=ServiceSettings(aliases=("acme/demo", "acme/b")), two=ServiceSettings())

    assert found.aliases_of("one") == ("acme/demo", "acme/b")
    assert found.aliases_of("two") == ("two",)
    assert found.aliases_of("nobody") == ("nobody",)


# ------------------------------------------------------------------------------------------------------ where it goes


@pytest.mark.parametrize(
    ("target_url", "path", "query", "expected"),
    [
        ("http://t/api/{service}/{path}", "", "", "http://t/api/s"),
        ("http://t/api/{service}/{path}", "v1/x", "", "http://t/api/s/v1/x"),
        ("http://t/api/{service}/{path}", "a%2Fb/", "k=1&k=2", "http://t/api/s/a%2Fb/?k=1&k=2"),
        ("http://t/api/{service}/{path}", "", "k=1", "http://t/api/s?k=1"),
        ("http://t/predict", "", "", "http://t/predict"),
        ("http://t/predict?key=1", "", "k=2", "http://t/predict?key=1&k=2"),
        ("http://t/{path}", "{service}", "", "http://t/{service}"),
        ("http://t", "", "", "http://t"),
    ],
)
def test_the_url_is_the_targets_with_service_path_and_query(
    target_url: str, path: str, query: str, expected: str
) -> None:
    assert service(target_url).url(path, query) == expected


# ------------------------------------------------------------------------------------------------------------ settings


def test_every_setting_has_a_default_that_works_and_a_line_that_explains_it() -> None:
    settings = ServiceSettings()

    assert settings.max_concurrency == 64
    assert (settings.max_attempts, settings.retry_on) == (4, (408, 502, 503, 504))
    assert (settings.timeout_s, settings.deadline_s, settings.max_queue_length) == (600, 0, 100_000)
    assert [name for name, field in ServiceSettings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_url", "ftp://t"),
        ("target_url", "localhost:8000"),
        ("target_url", "http://t/{name}"),
        ("target_url", "http://t/{}"),
        ("target_url", "http://t/{path"),
        ("max_concurrency", 0),
        ("max_concurrency", 1.5),
        ("max_concurrency", "many"),
        ("timeout_s", 0),
        ("timeout_s", float("nan")),
        ("timeout_s", float("inf")),
        ("max_attempts", 0),
        ("retry_on", [200]),
        ("retry_on", [600]),
        ("retry_on", 503),
        ("retry_delay_s", -1),
        ("retry_delay_max_s", -1),
        ("max_queue_length", 0),
        ("deadline_s", -1),
        ("weight", 0),
        ("submit_body", "body"),
        ("sink", "sometimes"),
        ("max_sink_length", 0),
        ("aliases", "acme/demo"),
        ("aliases", [1]),
        ("adapter", "vllm"),
        ("timeout", 3),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        ServiceSettings(**{name: value})

    assert {error["loc"][0] for error in caught.value.errors()} == {name}


@pytest.mark.parametrize(
    "url", ["http://t/{service.x}", "http://t/{0}", "http://t/{", "http://user:password@t/x", "http:///x", "ftp://t/x"]
)
def test_a_wrong_target_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        ServiceSettings(target_url=url)

    assert all("password" not in error["msg"].replace("or password", "") for error in caught.value.errors())


def test_an_adapter_is_for_what_is_forwarded() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        ServiceSettings(mode="pull", adapter="openai_completions")

    assert [error["loc"] for error in caught.value.errors()] == [("adapter",)]
    assert ServiceSettings(mode="push", adapter="openai_completions").adapter == "openai_completions"
    assert ServiceSettings(mode="pull", adapter="").mode == "pull"


def test_every_adapter_that_may_be_set_is_there() -> None:
    allowed = get_args(ServiceSettings.model_fields["adapter"].annotation)

    assert ServiceSettings().adapter == ""
    assert [adapters.named(name).check for name in allowed if name]
    assert len(allowed) == 2
