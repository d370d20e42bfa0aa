"""One question, one answer, and where it came from."""

from __future__ import annotations

from _start import example_router, ir

with example_router() as router:
    answer = router.chat_completion(ir.ChatRequest("In one sentence: why is the sky blue?", max_tokens=200))
    print(answer.text)
    where = answer.routing
    print(f"\n{where.provider}/{where.account_id} {where.model}: {answer.usage.total_tokens} tokens, ${where.cost:.6f}")
