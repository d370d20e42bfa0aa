"""Streams put together: whole when whole, and nothing half-written passed off as finished."""

from __future__ import annotations

import unittest
from typing import Any

from tests import part

answers, assemble, records = part("responses"), part("responses"), part("records")
ChatChunk, ChunkChoice, Delta, ToolCallDelta = answers.ChatChunk, answers.ChunkChoice, answers.Delta, answers.ToolCallDelta
Usage, ToolCall = records.Usage, records.ToolCall

ROUTING = records.Routing("p", "a", "m")


def chunk(index: int = 0, finish: str | None = None, **delta: Any) -> Any:
    return ChatChunk(choices=(ChunkChoice(index, Delta(**delta), finish),))


def assembled(*chunks: Any) -> Any:
    made = assemble.Assembler()
    for item in chunks:
        made.add(item)
    return made


def response(*chunks: Any, complete: bool = True, natives: Any = None) -> Any:
    return assembled(*chunks).response(ROUTING, Usage(1, 2, 3), natives or {}, complete)


class Whole(unittest.TestCase):
    def test_text_and_reasoning_are_joined_in_order(self) -> None:
        """The answer's text and reasoning are the chunks' in order, its finish reason the last."""
        made = response(chunk(content="a", reasoning="r"), chunk(content="b"), chunk(reasoning="s"), chunk(finish="stop"))
        self.assertEqual((made.text, made.reasoning, made.finish_reason), ("ab", "rs", "stop"))
        self.assertEqual((made.routing, made.usage), (ROUTING, Usage(1, 2, 3)))

    def test_the_first_id_and_model_count(self) -> None:
        """id and model are the first that were told; sources are kept, empty ones not."""
        made = response(ChatChunk(source="{}"), ChatChunk("i", "m", source=""), ChatChunk("j", "n", source="[]"))
        self.assertEqual((made.id, made.model, made.raw), ("i", "m", [{}, []]))

    def test_usage_is_replaced_not_added(self) -> None:
        """The last usage told is the usage."""
        made = assembled(ChatChunk(usage=Usage(1, 1, 2)), ChatChunk(usage=Usage(1, 5, 6)), ChatChunk())
        self.assertEqual(made.usage, Usage(1, 5, 6))
        self.assertIsNone(assembled(ChatChunk()).usage)

    def test_choices_are_kept_apart_and_in_order(self) -> None:
        """Interleaved choices come out by their number."""
        made = response(chunk(1, content="x"), chunk(0, content="a"), chunk(1, "length", content="y"), chunk(0, "stop"))
        found = [(choice.index, choice.message.text, choice.finish_reason) for choice in made.choices]
        self.assertEqual(found, [(0, "a", "stop"), (1, "xy", "length")])

    def test_no_chunk_at_all_still_is_an_answer(self) -> None:
        """Nothing gives one empty choice."""
        made = response()
        self.assertEqual((made.text, made.finish_reason, len(made.choices)), ("", None, 1))

    def test_a_native_turn_reaches_its_choice(self) -> None:
        """The kept turn of a choice is in its message."""
        native = records.NativeTurn("openai", "p", "{}", "a", ())
        made = response(chunk(content="a"), chunk(1, content="b"), natives={0: native})
        self.assertIs(made.choices[0].message.native, native)
        self.assertIsNone(made.choices[1].message.native)

    def test_what_was_produced_counts_everything(self) -> None:
        """`produced` holds text, reasoning and arguments of all choices."""
        call = ToolCallDelta(0, "c", "f", '{"a"')
        made = assembled(chunk(content="x", reasoning="y", tool_calls=(call,)), chunk(1, content="z"))
        self.assertEqual(sorted(made.produced), sorted('xyz{"a"'))

    def test_an_answer_is_empty_until_something_came(self) -> None:
        """Content, reasoning, arguments or a finish reason make an answer; ids, usage and empty choices do not."""
        call = ToolCallDelta(0, "c", "f", "{")
        for nothing in (assembled(), assembled(ChatChunk("i", "m", usage=Usage(1, 0, 1))), assembled(chunk(), chunk(1))):
            self.assertTrue(nothing.empty)
        for something in (chunk(content="a"), chunk(reasoning="r"), chunk(tool_calls=(call,)), chunk(1, "stop")):
            self.assertFalse(assembled(chunk(), something).empty)


class Calls(unittest.TestCase):
    PIECES = (
        chunk(tool_calls=(ToolCallDelta(1, "c2", "g", '{"b"'),)),
        chunk(tool_calls=(ToolCallDelta(0, "c1", "f", "", "sig"), ToolCallDelta(1, arguments=": 2}"))),
        chunk(tool_calls=(ToolCallDelta(0, "other", "other", '{"a": 1}', "other"),)),
    )

    def test_fragments_are_joined_by_index(self) -> None:
        """Calls come out in order of their index, with their first id, name and signature and all arguments."""
        made = response(*self.PIECES, chunk(finish="tool_calls"))
        self.assertEqual(made.tool_calls, (ToolCall("c1", "f", '{"a": 1}', "sig"), ToolCall("c2", "g", '{"b": 2}')))

    def test_a_call_without_arguments_has_an_empty_object(self) -> None:
        """No arguments at all read as {}."""
        made = response(chunk(tool_calls=(ToolCallDelta(0, "c", "f"),)), chunk(finish="tool_calls"))
        self.assertEqual(made.tool_calls, (ToolCall("c", "f", "{}"),))

    def test_a_cut_stream_gives_no_half_written_call(self) -> None:
        """At every cut of the arguments an incomplete stream gives the call only if they are a whole object."""
        arguments = '{"path": "/", "deep": {"x": [1, 2]}}'
        for cut in range(len(arguments) + 1):
            made = response(chunk(tool_calls=(ToolCallDelta(0, "c", "f", arguments[:cut]),)), complete=False)
            whole = cut == len(arguments)
            self.assertEqual(len(made.tool_calls), int(whole), arguments[:cut])

    def test_what_is_no_object_is_not_whole(self) -> None:
        """Bare values, {} (which may be the stand-in for nothing yet) and absurd nesting are not given away."""
        for arguments in ("12", '"x"', "{}", "", "[" * 100_000):
            made = response(chunk(tool_calls=(ToolCallDelta(0, "c", "f", arguments),)), complete=False)
            self.assertEqual(made.tool_calls, ())

    def test_a_cut_stream_has_no_finish_reason(self) -> None:
        """Incomplete answers have their text and no finish reason."""
        made = response(chunk(content="a"), chunk(finish="stop"), complete=False)
        self.assertEqual((made.text, made.finish_reason), ("a", None))


if __name__ == "__main__":
    unittest.main()
