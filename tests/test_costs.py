"""Estimates: rough, but never absurdly low, and never an exception from outside."""

from __future__ import annotations

import unittest
from typing import Any

from tests import part

content, errors, costs, records, tool = (part(name) for name in ("content", "errors", "costs", "records", "tool"))
AccountConfig = part("account").AccountConfig
ChatRequest, Message, Part = records.ChatRequest, records.Message, content.Part
DEFAULT = costs.DEFAULT_OUTPUT_TOKENS


def tokens_in(*parts: Any) -> int:
    """What these parts add to a message's input estimate."""
    found: int = costs.estimate_chat(ChatRequest([Message("user", list(parts))])).input_tokens
    empty: int = costs.estimate_chat(ChatRequest([Message("user", "")])).input_tokens
    return found - empty


class Texts(unittest.TestCase):
    def test_ascii_counts_two_tokens_for_seven_characters(self) -> None:
        """3.5 ASCII characters are a token, rounded up."""
        for size, expected in ((0, 0), (1, 1), (3, 1), (4, 2), (7, 2), (8, 3), (3500, 1000)):
            self.assertEqual(costs.estimate_text("x" * size), expected, size)

    def test_every_other_character_is_a_token(self) -> None:
        """Characters beyond ASCII count one each, besides the ASCII among them."""
        self.assertEqual(costs.estimate_text("日本語"), 3)
        self.assertEqual(costs.estimate_text("日本語 abc de"), 3 + 2)
        self.assertEqual(costs.estimate_text("\ud83d"), 1)


class Chats(unittest.TestCase):
    def test_messages_cost_their_text_and_a_little_more(self) -> None:
        """Each message adds four tokens to its text, and a request three."""
        self.assertEqual(costs.estimate_chat(ChatRequest("x" * 7)).input_tokens, 3 + 4 + 2)
        two = ChatRequest([Message("system", "x" * 7), Message("user", ["x" * 7, "x" * 7])])
        self.assertEqual(costs.estimate_chat(two).input_tokens, 3 + 4 + 2 + 4 + 4)

    def test_the_answer_counts_as_large_as_it_may_become(self) -> None:
        """max_tokens, else the default, times the number of answers asked for."""
        rows: list[tuple[dict[str, Any], int]] = [
            ({}, DEFAULT),
            ({"max_tokens": 10}, 10),
            ({"max_tokens": 10, "extra": {"n": 3}}, 30),
            ({"extra": {"a": 1}}, DEFAULT),
            ({"extra": {"generationConfig": {"maxOutputTokens": 70}}}, 70),
            ({"max_tokens": 10, "extra": {"max_tokens": 9}}, 10),
            ({"extra": {"max_tokens": 10**400}}, costs.MOST_TOKENS),
        ]
        rows += [({"extra": {name: 5000}}, 5000) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
        rows += [({"extra": {"max_tokens": wrong}}, DEFAULT) for wrong in (0, -1, True, "3", None, 2.5, [7])]
        rows += [({"max_tokens": 10, "extra": {"n": wrong}}, 10) for wrong in (0, -1, 129, True, "3", None, 2.0)]
        for settings, expected in rows:
            self.assertEqual(costs.estimate_chat(ChatRequest("x", **settings)).output_tokens, expected, settings)

    def test_total_is_both(self) -> None:
        """`total` is input and output together."""
        self.assertEqual(costs.Estimate(3, 4).total, 7)

    def test_tools_calls_and_formats_count(self) -> None:
        """Tool declarations, tool calls and response formats add to the input."""
        bare = costs.estimate_chat(ChatRequest("x")).input_tokens
        tools = [tool.Tool("f", "d" * 350, {"type": "object"})]
        self.assertGreater(costs.estimate_chat(ChatRequest("x", tools=tools)).input_tokens, bare + 100)
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"description": "d" * 350}}}
        self.assertGreater(costs.estimate_chat(ChatRequest("x", response_format=form)).input_tokens, bare + 100)
        calls = [records.ToolCall("c", "x" * 7, "x" * 70)]
        turn = costs.estimate_chat(ChatRequest([Message("assistant", "x", calls)])).input_tokens
        self.assertEqual(turn, bare + 2 + 20 + 4)

    def test_media_count_by_kind_and_size(self) -> None:
        """A picture has a fixed size, other media go by their bytes, and what nobody has seen counts high."""
        self.assertEqual(tokens_in(Part.image(b"x", "image/png")), 1100)
        self.assertEqual(tokens_in(Part.image_url("https://h/x")), 1100)
        self.assertEqual(tokens_in(Part.audio(b"x" * 500_000, "audio/wav")), 1000)
        self.assertEqual(tokens_in(Part.video(b"x" * 500_000, "video/mp4")), 500)
        self.assertEqual(tokens_in(Part.document(b"x" * 500_000, "application/pdf")), 2500)
        self.assertEqual(tokens_in(Part.document(b"x", "application/pdf")), 258)
        self.assertEqual(tokens_in(Part("audio", url="https://h/x")), 5000)
        self.assertEqual(tokens_in(Part("hologram", data=b"x")), 258)

    def test_what_json_cannot_say_is_the_callers_fault(self) -> None:
        """Schemas that hold objects, sets or themselves raise InvalidRequestError that names them."""
        endless: dict[str, Any] = {}
        endless["self"] = endless
        for value in (object(), {1, 2}, b"x", endless):
            with self.assertRaises(errors.InvalidRequestError) as caught:
                costs.estimate_chat(ChatRequest("x", tools=[tool.Tool("f", parameters={"x": value})]))
            self.assertIn("tool 'f'", str(caught.exception))
            form = {"type": "json_schema", "json_schema": {"schema": {"x": value}}}
            with self.assertRaises(errors.InvalidRequestError) as caught:
                costs.estimate_chat(ChatRequest("x", response_format=form))
            self.assertIn("response_format", str(caught.exception))


class Costs(unittest.TestCase):
    def test_media_is_reserved_at_its_own_price(self) -> None:
        """Media that is dearer than text is reserved at its price, cheaper media at that of text: it may be counted as text."""
        sound = [Part.text("x"), Part.audio(b"x" * 500_000, "audio/wav"), Part.image(b"x", "image/png")]
        estimate = costs.estimate_chat(ChatRequest([Message("user", sound)], max_tokens=10))
        self.assertEqual(dict(estimate.media), {"audio": 1000, "image": 1100})
        text = estimate.input_tokens - 2100
        rows: list[tuple[dict[str, float], float]] = [
            ({}, text + 2100),
            ({"cost_per_audio_input_token": 40.0}, text + 1100 + 40_000),
            ({"cost_per_image_input_token": 0.25}, text + 2100),
            ({"cost_per_image_input_token": 3.0, "cost_per_audio_input_token": 2.0}, text + 3300 + 2000),
        ]
        for prices, dollars in rows:
            account = AccountConfig("p", "a", cost_per_input_token=1.0, cost_per_output_token=2.0, **prices)
            self.assertEqual(costs.most_it_costs(account, estimate), dollars + 20)

    def test_media_that_an_answer_does_not_tell_of(self) -> None:
        """Where usage does not say what was media, dear media counts as estimated; what usage says itself is believed."""
        account = AccountConfig("p", "a", cost_per_input_token=1.0, cost_per_audio_input_token=5.0)
        estimate = costs.Estimate(110, 10, {"audio": 100})
        told = records.Usage(110, 0, 110, input_breakdown={"audio": 30})
        self.assertEqual(costs.cost_of(account, costs.with_media(records.Usage(110, 0, 110), estimate, account)), 510)
        self.assertEqual(costs.cost_of(account, costs.with_media(records.Usage(50, 0, 50), estimate, account)), 250)
        self.assertEqual(costs.cost_of(account, costs.with_media(told, estimate, account)), 230)

    def test_usages_are_added_up(self) -> None:
        """Each count and each kind of input; one estimate makes an estimate of all, and one usage alone stays as it is."""
        one = records.Usage(100, 20, 130, 40, 5, {"audio": 30, "image": 7})
        other = records.Usage(10, 2, 12, 4, 1, {"audio": 3, "text": 2}, estimated=True)
        both = records.Usage(110, 22, 142, 44, 6, {"audio": 33, "image": 7, "text": 2}, estimated=True)
        self.assertEqual(costs.total_usage((one, other)), both)
        self.assertFalse(costs.total_usage((one, one)).estimated)
        self.assertIs(costs.total_usage((one,)), one)


# What a call needs by ESTIMATE, what it used by USAGE (None: no provider says), and how two of the unit read.
UNITS: dict[str, tuple[float, float | None, str]] = {
    "requests": (1, 1, "2 requests"),
    "tokens": (50, 12, "2 tokens"),
    "dollars": (70, 17, "$2"),
    "input_tokens": (30, 7, "2 input tokens"),
    "output_tokens": (20, 5, "2 output tokens"),
    "inputs": (3, None, "2 inputs"),
    "images": (2, None, "2 images"),
    "audio_seconds": (1.5, None, "2 seconds of audio"),
    "parallel": (1, 0, "2 calls at once"),
}
ESTIMATE = costs.Estimate(30, 20, inputs=3, images=2, audio_s=1.5)
USAGE = records.Usage(7, 5, 12)


class Units(unittest.TestCase):
    def test_each_unit(self) -> None:
        """Of each unit a call needs what its estimate says of it, has used what its usage says, and its amounts read as such."""
        self.assertEqual(list(UNITS), list(costs.UNITS))
        prices = AccountConfig("p", "a", cost_per_input_token=1.0, cost_per_output_token=2.0)
        for name, unit in costs.UNITS.items():
            used = None if unit.used is None else unit.used(USAGE, prices)
            with self.subTest(name):
                self.assertEqual((unit.needed(ESTIMATE, prices), used, unit.shown(2)), UNITS[name])

    def test_what_many_calls_have_none_of(self) -> None:
        """A unit that a plain question needs nothing of says so, as an allowance in it would never be used up."""
        prices = AccountConfig("p", "a", cost_per_input_token=1.0)
        for name, unit in costs.UNITS.items():
            self.assertIs(unit.often_none, not unit.needed(costs.Estimate(30, 20), prices), name)


class Embeds(unittest.TestCase):
    def test_all_texts_count_and_no_output(self) -> None:
        """Each text counts with one token more; vectors cost no output."""
        found = costs.estimate_embed(records.EmbedRequest(["x" * 7, "x" * 14]))
        self.assertEqual((found.input_tokens, found.output_tokens), (3 + 5, 0))


if __name__ == "__main__":
    unittest.main()
