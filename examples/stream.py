"""A streamed answer, with what happens when it breaks off."""

from __future__ import annotations

from _start import example_router, ir

with example_router() as router:
    try:
        with router.stream(ir.ChatRequest("Tell me a very short story about a lighthouse.")) as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(f"\n\n{stream.response.usage.total_tokens} tokens from {stream.routing.account_id}")
    except ir.StreamInterruptedError as error:
        print(f"\nbroke off after {len(error.partial.text)} characters: {error.cause}")
