"""The example target: how good its model is, what its sentences are, and every answer it gives over real HTTP."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from examples.sentiment.model import HELDOUT_FILE, TRAIN_FILE, Example, Model, features, parse

ROOT = Path(__file__).parent.parent
READY_WITHIN_S = 20
STOPPED_WITHIN_S = 10
SENTIMENT = "/api/predict/sentiment"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    json: Any


class Target(NamedTuple):
    """A running target; `post` and `get` each use a connection of their own."""

    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def send(self, method: str, path: str, body: bytes | None = None, content_type: str | None = None) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        assert response.headers["Content-Type"] == "application/json"
        return Answer(response.status, dict(response.headers), json.loads(content))

    def post(self, path: str, body: object) -> Answer:
        return self.send("POST", path, json.dumps(body).encode(), "application/json")

    def get(self, path: str) -> Answer:
        return self.send("GET", path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(is_true: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s} s: {what}")
        time.sleep(0.02)


def readme_command(program: str, port: int) -> list[str]:
    """The one line of the README that starts the target with *program*, run by this interpreter on *port*."""
    readme = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in readme.splitlines() if line.startswith(f"{program} ")]
    _, *arguments = shlex.split(line.replace("5001", str(port)))
    return [sys.executable, *arguments] if program == "python" else [sys.executable, "-m", program, *arguments]


@pytest.fixture(scope="module", params=["python", "gunicorn"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The target, started by each of the README's two commands and stopped by its own process id."""
    port = free_port()
    log_file = tmp_path_factory.mktemp("target") / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(readme_command(request.param, port), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def is_ready() -> bool:
        assert process.poll() is None, f"the target ended at start:\n{log_file.read_text()}"
        try:
            return Target(port).get("/healthz").status == 200
        except OSError:
            return False

    try:
        wait_until(is_ready, READY_WITHIN_S, "GET /healthz answers 200")
        yield Target(port)
    finally:
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def words_of(example: Example) -> str:
    """The sentence without case and punctuation, so that a comma does not make a copy a new sentence."""
    return " ".join(re.findall(r"\w+", example.sentence.lower()))


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.train(lines_of(TRAIN_FILE))


# The sentences


def test_training_has_at_least_600_sentences_balanced_between_the_labels() -> None:
    counts = Counter(example.label for example in parse(lines_of(TRAIN_FILE)))

    assert counts.total() >= 600
    assert counts["pos"] == counts["neg"]


def test_heldout_has_100_sentences_of_each_label() -> None:
    counts = Counter(example.label for example in parse(lines_of(HELDOUT_FILE)))

    assert counts == {"pos": 100, "neg": 100}


def test_no_sentence_occurs_twice_in_or_across_the_files() -> None:
    examples = parse(lines_of(TRAIN_FILE)) + parse(lines_of(HELDOUT_FILE))

    repeated = [sentence for sentence, count in Counter(map(words_of, examples)).items() if count > 1]

    assert repeated == []


def test_no_heldout_sentence_is_a_training_sentence_with_few_words_changed() -> None:
    training = [set(words_of(example).split()) for example in parse(lines_of(TRAIN_FILE))]

    def likeness(example: Example) -> float:
        words = set(words_of(example).split())
        return max(len(words & other) / len(words | other) for other in training)

    assert [e.sentence for e in parse(lines_of(HELDOUT_FILE)) if likeness(e) > 0.5] == []


# The model


def test_accuracy_on_the_heldout_sentences_is_at_least_three_quarters(model: Model) -> None:
    assert model.accuracy(lines_of(HELDOUT_FILE)) >= 0.75


def test_training_takes_less_than_half_a_second() -> None:
    lines = lines_of(TRAIN_FILE)
    started = time.perf_counter()

    Model.train(lines)

    assert time.perf_counter() - started < 0.5


def test_a_negation_marks_the_next_three_words_until_punctuation() -> None:
    assert list(features("It isn\u2019t a very good film. Great!")) == (
        ["it", "isn't", "not_a", "not_very", "not_good", "film", "great"]
    )
    assert list(features("No, great")) == ["no", "great"]


def test_text_without_a_known_word_gets_an_even_probability(model: Model) -> None:
    assert model.predict("xyzzy 42").probability == 0.5


def test_a_very_long_text_gets_a_probability_and_no_arithmetic_error(model: Model) -> None:
    prediction = model.predict("terrible " * 50_000)

    assert prediction.label == "neg"
    assert prediction.probability == pytest.approx(1.0)


@pytest.mark.parametrize("line", ["pos I forgot the tab", "good\tWrong label.", "pos\t"])
def test_a_malformed_training_line_is_refused_by_number(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        Model.train(["pos\tFine.", line])


def test_training_without_a_sentence_of_each_label_is_refused() -> None:
    with pytest.raises(ValueError, match="labelled neg"):
        Model.train(["pos\tFine."])


def test_accuracy_on_no_sentences_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="no sentence"):
        model.accuracy([])


# Answers over HTTP


@pytest.mark.parametrize(
    ("text", "label"), [("What a wonderful, friendly place!", "pos"), ("Rude staff and awful food.", "neg")]
)
def test_one_text_gets_its_label_and_probability(target: Target, text: str, label: str) -> None:
    answer = target.post(SENTIMENT, {"text": text})

    assert answer.status == 200
    assert answer.json.keys() == {"label", "probability", "text"}
    assert (answer.json["label"], answer.json["text"]) == (label, text)
    assert 0.5 < answer.json["probability"] <= 1


def test_several_texts_get_predictions_in_their_order(target: Target) -> None:
    answer = target.post(SENTIMENT, {"texts": ["I love it.", "I hate it.", "I love it."]})

    assert answer.status == 200
    assert [p["label"] for p in answer.json["predictions"]] == ["pos", "neg", "pos"]
    assert [p["text"] for p in answer.json["predictions"]] == ["I love it.", "I hate it.", "I love it."]


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8"])
def test_plain_text_is_classified_as_it_is_even_when_it_looks_like_json(target: Target, content_type: str) -> None:
    answer = target.send("POST", SENTIMENT, '["café", "lovely"]'.encode(), content_type)

    assert answer.status == 200
    assert answer.json["text"] == '["café", "lovely"]'


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "application/octet-stream"])
def test_a_body_of_another_content_type_is_read_as_json_or_else_as_text(
    target: Target, content_type: str | None
) -> None:
    as_json = target.send("POST", SENTIMENT, b'{"text": "I love it."}', content_type)
    as_text = target.send("POST", SENTIMENT, b"I love it.", content_type)

    assert (as_json.status, as_json.json["text"]) == (200, "I love it.")
    assert as_text == as_json._replace(headers=as_text.headers)


@pytest.mark.parametrize(
    ("body", "classified"),
    [
        ({"key": "value", "input": [1, 2, 3]}, "value"),
        ({"inputs": ["A great", {"b": "film"}], "n": None, "z": [["indeed"]]}, "A great film indeed"),
        ({"text": 5, "note": "lovely"}, "lovely"),
        ("lovely", "lovely"),
    ],
)
def test_the_strings_of_other_json_are_classified_together(target: Target, body: object, classified: str) -> None:
    answer = target.post(SENTIMENT, body)

    assert answer.status == 200
    assert answer.json["text"] == classified
    assert answer.json["label"] in ("pos", "neg")


@pytest.mark.parametrize("path", ["/api/predict/other", "/api/predict/other/", "/api/predict/a.b-c_1/v1/chat/x"])
def test_every_service_name_and_subpath_is_answered(target: Target, path: str) -> None:
    assert target.post(path, {"text": "I love it."}).status == 200


def test_a_delay_holds_back_its_own_answer_and_no_other(target: Target) -> None:
    delayed = target.connect()
    started = time.monotonic()
    delayed.request("POST", f"{SENTIMENT}?delay_s=1.5", b"I love it.", {"Content-Type": "text/plain"})

    healthz = target.get("/healthz")
    healthz_after_s = time.monotonic() - started
    response = delayed.getresponse()
    delayed_after_s = time.monotonic() - started
    response.read()
    delayed.close()

    assert (healthz.status, response.status) == (200, 200)
    assert healthz_after_s < 1.5 <= delayed_after_s


def test_healthz_tells_what_the_model_learned_from_and_how_good_it_is(target: Target, model: Model) -> None:
    answer = target.get("/healthz")

    assert answer.status == 200
    assert answer.json["status"] == "ok"
    facts = answer.json["model"]
    assert 0 < facts.pop("training_ms") < 500
    assert facts == {
        "training_sentences": len(lines_of(TRAIN_FILE)),
        "heldout_sentences": 200,
        "heldout_accuracy": model.accuracy(lines_of(HELDOUT_FILE)),
    }


def test_a_sampling_request_gets_samples_and_says_what_they_are(target: Target) -> None:
    asked = {"prompt": {"chunks": [{"tokens": list(b"The soup was")}]}, "num_samples": 2}

    answer = target.post("/api/predict/Qwen.Qwen3-0.6B", asked | {"sampling_params": {"max_tokens": 4, "seed": 1}})

    assert answer.status == 200
    assert next(iter(answer.json)) == "sequences"
    assert [len(sequence["tokens"]) for sequence in answer.json["sequences"]] == [4, 4]
    assert "no language model" in answer.json["sampled_by"]


def test_a_delay_per_token_holds_a_sample_back(target: Target) -> None:
    started = time.monotonic()

    connection = target.connect()
    asked = {"prompt": {"chunks": [{"tokens": [9707]}]}, "sampling_params": {"max_tokens": 3}}
    connection.request("POST", SENTIMENT, json.dumps(asked).encode(), {"X-Token-Delay-S": "0.1"})
    answer = json.loads(connection.getresponse().read())
    connection.close()

    assert answer["sequences"][0]["tokens"] == [9707, 9707, 9707]
    assert time.monotonic() - started >= 0.3


# Refusals over HTTP


@pytest.mark.parametrize("prompt", [{"chunks": []}, {"chunks": [{"type": "image", "data": ""}]}])
def test_a_sampling_request_that_cannot_be_answered_is_refused(target: Target, prompt: object) -> None:
    answer = target.post(SENTIMENT, {"prompt": prompt})

    assert (answer.status, answer.json["error"]) == (422, "not_sampled")
    assert "prompt" in answer.json["message"]


@pytest.mark.parametrize("body", [b'{"text": ', b'{"n": 1} x', b"[" * 100_000])
@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.api+json; charset=utf-8"])
def test_a_body_that_is_not_the_json_it_claims_to_be_is_refused(target: Target, body: bytes, content_type: str) -> None:
    answer = target.send("POST", SENTIMENT, body, content_type)

    assert (answer.status, answer.json["error"]) == (400, "invalid_json")
    assert answer.json["message"].startswith("the body is not JSON: ")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json"])
def test_a_body_that_is_not_utf_8_is_refused(target: Target, content_type: str | None) -> None:
    answer = target.send("POST", SENTIMENT, b'{"text": "\xff"}', content_type)

    assert (answer.status, answer.json["error"]) == (400, "invalid_encoding")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json"])
@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_refused_and_told_what_to_send(target: Target, body: bytes, content_type: str | None) -> None:
    answer = target.send("POST", SENTIMENT, body, content_type)

    assert (answer.status, answer.json["error"]) == (422, "nothing_to_classify")
    assert '{"text": "..."}' in answer.json["message"]


@pytest.mark.parametrize("body", [{}, [], [1, 2], None, 7, True, {"key": {"n": [1.5]}}, {"text": ""}, {"a": " "}])
def test_json_without_text_is_refused_and_told_what_to_send(target: Target, body: object) -> None:
    answer = target.post(SENTIMENT, body)

    assert (answer.status, answer.json["error"]) == (422, "nothing_to_classify")
    assert '{"text": "..."}' in answer.json["message"]


@pytest.mark.parametrize("texts", [[], "I love it.", ["I love it.", 3], ["I love it.", " "], None])
def test_texts_with_an_entry_that_is_no_text_are_refused_whole(target: Target, texts: object) -> None:
    answer = target.post(SENTIMENT, {"texts": texts})

    assert (answer.status, answer.json["error"]) == (422, "nothing_to_classify")
    assert "list of non-empty strings" in answer.json["message"]


@pytest.mark.parametrize("value", ["-0.1", "60.1", "nan", "inf", "soon", ""])
def test_a_delay_that_is_no_number_from_0_to_60_is_refused(target: Target, value: str) -> None:
    answer = target.post(f"{SENTIMENT}?delay_s={value}", {"text": "I love it."})

    assert (answer.status, answer.json["error"]) == (400, "invalid_delay")
    assert "from 0 to 60" in answer.json["message"]


def test_a_refusal_does_not_wait_for_the_delay(target: Target) -> None:
    started = time.monotonic()

    answer = target.post(f"{SENTIMENT}?delay_s=60", {})

    assert answer.status == 422
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("path", [SENTIMENT, f"{SENTIMENT}/", f"{SENTIMENT}/sub/path"])
def test_another_method_is_refused_with_the_allowed_ones(target: Target, path: str) -> None:
    answer = target.get(path)

    assert (answer.status, answer.json["error"]) == (405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/api/predict", "/api/predict/"])
def test_another_path_is_not_found(target: Target, path: str) -> None:
    answer = target.post(path, {"text": "I love it."})

    assert (answer.status, answer.json["error"]) == (404, "not_found")


# The command line and the README


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_cannot_be_is_refused_at_start(port: str) -> None:
    command = [sys.executable, "-m", "examples.sentiment.target", "--port", port]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=READY_WITHIN_S, check=False)

    assert ended.returncode == 2
    assert "--port" in ended.stderr


def test_every_curl_line_of_the_readme_is_answered(target: Target) -> None:
    readme = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in readme.splitlines() if line.startswith("curl ")]
    assert len(lines) >= 5

    for _, url, *options in lines:
        given = dict(zip(options[::2], options[1::2], strict=True))
        assert given.keys() <= {"-H", "-d"}
        path = url.removeprefix("http://127.0.0.1:5001")
        assert urlsplit(path).netloc == ""
        content_type = given["-H"].removeprefix("Content-Type: ") if "-H" in given else None
        body = given["-d"].encode() if "-d" in given else None
        assert target.send("POST" if body else "GET", path, body, content_type).status == 200, url


def test_the_numbers_of_the_readme_are_the_measured_ones(model: Model) -> None:
    readme = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")

    assert f"the {model.training_sentences} sentences" in readme
    assert f"never learns from: {model.accuracy(lines_of(HELDOUT_FILE)):.2f}." in readme
