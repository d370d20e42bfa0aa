"""What the OpenAI dialect costs above reading the JSON, in microseconds. Run: python3 -m tests.benchmarks.bench_openai

Each figure is the least of many short runs, as other work on the machine only slows it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests import part

records = part("records")
Provider = part("provider_openai").OpenAICompatProvider
Endpoint = part("provider").Endpoint
Secret = part("secret").Secret

USAGE = {
    "prompt_tokens": 13,
    "completion_tokens": 11,
    "total_tokens": 24,
    "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0},
    "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 0},
}
HEAD = {
    "id": "chatcmpl-E4Rjs6IxaJVge9Ntk5keJsaeDy6vS",
    "created": 1784728648,
    "model": "gpt-5-2025-08-07",
    "system_fingerprint": None,
}
CHUNK = {**HEAD, "choices": [{"index": 0, "delta": {"content": " Paris"}, "finish_reason": None}], "usage": None}
MESSAGE = {"role": "assistant", "content": "Paris is the capital. " * 20, "refusal": None, "annotations": []}
WHOLE = {**HEAD, "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop", "logprobs": None}], "usage": USAGE}


def main() -> None:
    provider = Provider("openai", "https://api.openai.com/v1")
    endpoint = Endpoint(provider.base_url, Secret("sk-0123456789"))
    turns = [records.Message("system", "Be brief."), records.Message("user", "Hello there.")]
    request = records.ChatRequest(turns, max_tokens=64, temperature=0.2)
    event = f"data: {json.dumps(CHUNK)}\n\n".encode()
    chunk, whole = json.dumps(CHUNK), json.dumps(WHOLE).encode()
    decoder = provider.decoder("m")
    decoder.feed(event)
    chunk_json, whole_json = least(lambda: json.loads(chunk)), least(lambda: json.loads(whole))
    streaming = least(lambda: decoder.feed(event)) - chunk_json
    reading = least(lambda: provider.decode(whole, "m")) - whole_json
    writing = least(lambda: provider.encode(request, "gpt-4o-mini", endpoint, False))
    print(f"a stream chunk, events included  {streaming:6.1f} us above {chunk_json:.1f}")
    print(f"a whole answer                   {reading:6.1f} us above {whole_json:.1f}")
    print(f"a request                        {writing:6.1f} us")


def least(work: Callable[[], Any], runs: int = 300, calls: int = 200) -> float:
    """Microseconds of one call."""
    best = float("inf")
    for _ in range(runs):
        began = time.perf_counter()
        for _ in range(calls):
            work()
        best = min(best, time.perf_counter() - began)
    return best / calls * 1e6


if __name__ == "__main__":
    main()
