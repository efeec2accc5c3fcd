"""Samples through the queue with Tinker's own client, and prints them as text.

    TINKER_BASE_URL=http://127.0.0.1:5000 TINKER_API_KEY=$(cat .run/token) python examples/tinker/sample.py "The soup"

Nothing in it is about the queue: those two variables are all that sends it there. The target that comes along counts
bytes as tokens, so no tokenizer is needed; for a model of yours, take its tokenizer's ids, and decode with it.
"""

from __future__ import annotations

import argparse
import sys

import tinker
from tinker import types


def main() -> None:
    parser = argparse.ArgumentParser(description="Continues a text, through the queue.")
    parser.add_argument("text", nargs="?", default="The soup was")
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B", help="a base model, or a tinker:// path")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=60)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int)
    asked = parser.parse_args()

    prompt = types.ModelInput.from_ints(list(asked.text.encode()))
    params = types.SamplingParams(max_tokens=asked.max_tokens, temperature=asked.temperature, seed=asked.seed)
    model = {"model_path" if asked.model.startswith("tinker://") else "base_model": asked.model}
    try:
        with tinker.ServiceClient() as service:
            client = service.create_sampling_client(**model).result()
            found = client.sample(prompt, asked.samples, params).result()
    except tinker.TinkerError as exc:
        sys.exit(f"{type(exc).__name__}: {exc}")
    for sequence in found.sequences:
        text = asked.text + bytes(sequence.tokens).decode(errors="replace").rstrip("\n")
        print(f"{text}  ({sequence.stop_reason}, {sum(sequence.logprobs or []):.1f})")


if __name__ == "__main__":
    main()
