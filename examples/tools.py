"""A tool call and its answer: the model asks, the program looks, the model tells."""

from __future__ import annotations

from _start import example_router, ir


def weather(city: str) -> str:
    """The weather in a city right now."""
    return f"{city}: 8 degrees, rain until the evening"


with example_router() as router:
    messages = [ir.Message("user", "What is the weather in Paris? Do I need an umbrella?")]
    request = ir.ChatRequest(messages, tools=[ir.Tool.from_function(weather)])
    answer = router.chat_completion(request)
    messages.append(answer.message)
    for call in answer.tool_calls:
        print(f"the model calls {call.name}({call.arguments})")
        messages.append(ir.Message("tool", weather(**call.parsed()), tool_call_id=call.id))
    if answer.tool_calls:
        answer = router.chat_completion(ir.ChatRequest(messages, tools=request.tools))
    print(answer.text)
