"""Which names are misspellings, and that none of them reaches another model."""

from __future__ import annotations

import random
import unittest
from typing import Any

from tests import ir, part
from tests.fakes import FakeClock, alias

spelling = part("spelling")

KNOWN = ["fast", "free", "gemini-3.5-flash", "gpt-oss-120b", "openai/gpt-oss-20b", "gpt-4o-mini", "gemma-3-4b-it"]
PATTERNS = ["gemini-*", "gemma-*", "claude-*", "gpt-[0-9]*", "o[1-9]"]


def slow_distance(one: str, other: str) -> int:
    """The same by recursion."""
    if not one or not other:
        return len(one) + len(other)
    cost = min(
        slow_distance(one[1:], other) + 1,
        slow_distance(one, other[1:]) + 1,
        slow_distance(one[1:], other[1:]) + (one[0] != other[0]),
    )
    if len(one) > 1 and len(other) > 1 and one[0] == other[1] and one[1] == other[0]:
        cost = min(cost, slow_distance(one[2:], other[2:]) + 1)
    return cost


class Misspelt(unittest.TestCase):
    def test_typos(self) -> None:
        """Letters that are swapped, missing, doubled or in another case are found, the nearest name first."""
        for name, meant in (
            ("fats", "fast"),
            ("Fast", "fast"),
            ("fst", "fast"),
            ("gemni-3.5-flash", "gemini-3.5-flash"),
            ("gemini-3.5-flahs", "gemini-3.5-flash"),
            ("gpt4o-mini", "gpt-4o-mini"),
            ("gtp-4o", "gpt-[0-9]*"),
            ("cluade-sonnet-5", "claude-*"),
            ("openai/gpt-oss-20", "openai/gpt-oss-20b"),
        ):
            self.assertEqual(spelling.misspelt(name, KNOWN, PATTERNS)[:1], [meant], name)

    def test_other_models(self) -> None:
        """Other numbers, a tag, or another name altogether are meant as they are."""
        names = [
            "gemini-2.5-flash",
            "gemma3:4b",
            "gemma3",
            "gpt-oss:120b",
            "gpt-oss:20b",
            "llama3.2",
            "mistral",
            "phi3",
            "o3",
            "x",
        ]
        for name in [*names, *KNOWN, "claude-opus-5", "x-ai/claude-x"]:
            self.assertEqual(spelling.misspelt(name, KNOWN, PATTERNS), [], name)

    def test_a_long_name_costs_nothing(self) -> None:
        """A name whose length alone rules a typo out is not looked at letter by letter."""

        class Long(str):
            def lower(self) -> str:
                raise AssertionError("read")

        self.assertEqual(spelling._edits_of_typo(Long("fast" * 9), "fast"), 0)
        self.assertEqual(spelling._edits_of_typo("gpt-4o-mini", Long("gpt-4o-minimal")), 0)

    def test_the_distance(self) -> None:
        """The distance is the one of the definition, up to the bound."""
        dice = random.Random(5)
        for _ in range(300):
            one, other = ("".join(dice.choices("abc", k=dice.randrange(6))) for _ in range(2))
            most = dice.randrange(4)
            self.assertEqual(
                spelling.edit_distance(one, other, most), min(slow_distance(one, other), most + 1), (one, other, most)
            )


class Routes(unittest.TestCase):
    def router(self, *accounts: Any, models: Any = ()) -> Any:
        made = ir.Router(
            ir.Config([ir.AccountConfig(name, name, base_url="http://127.0.0.1:9/v1") for name in accounts], models),
            clock=FakeClock(),
        )
        self.addCleanup(made.close)
        return made

    def served(self, router: Any, name: str) -> list[str]:
        return [f"{each.provider}/{each.model}" for each in router.explain(ir.ChatRequest("Hi", model=name)).candidates]

    def test_a_typo_does_not_reach_the_server_that_takes_any_name(self) -> None:
        """Names like an alias, a known model or another provider's own are refused with the right one, unless they say where."""
        router = self.router("gemini", "ollama", models=[alias("fast", "ollama/llama3.2")])
        for name, meant in (("gemni-3.5-flash", "gemini-3.5-flash"), ("fats", "fast"), ("llama-3.2", "llama3.2")):
            with self.assertRaises(ir.UnknownModelError) as caught:
                self.served(router, name)
            self.assertEqual(caught.exception.known[0], meant)
            self.assertIn(f"did you mean {meant}", str(caught.exception))
            self.assertIn(f"write ollama/{name}", str(caught.exception))
            self.assertEqual(self.served(router, f"ollama/{name}"), [f"ollama/{name}"])
        for name in ("mistral", "gemma3:4b", "codellama"):
            self.assertEqual(self.served(router, name), [f"ollama/{name}"])

    def test_a_long_name_is_not_repeated(self) -> None:
        """Megabytes that begin like another provider's model are refused at once, and the advice does not repeat them."""
        router = self.router("gemini", "ollama")
        with self.assertRaises(ir.UnknownModelError) as caught:
            self.served(router, f"gemni-{'x' * 3_000_000}")
        self.assertLess(len(str(caught.exception)), 400)
        self.assertIn("If it is not misspelt, write ollama/ before it.", str(caught.exception))

    def test_names_with_a_slash_of_their_own(self) -> None:
        """A model that the catalog knows at a provider is found by its own name, slash and all."""
        router = self.router("openrouter", "groq", "openai")
        for name, place in (
            ("openrouter/free", "openrouter/openrouter/free"),
            ("openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
            ("groq/compound", "groq/groq/compound"),
            ("groq/llama-9", "groq/llama-9"),
            ("openai/gpt-4o", "openai/gpt-4o"),
            ("groq/openai/gpt-oss-20b", "groq/openai/gpt-oss-20b"),
            ("google/gemma-9:free", "openrouter/google/gemma-9:free"),
        ):
            self.assertEqual(self.served(router, name), [place], name)

    def test_what_a_provider_says_itself_wins(self) -> None:
        """A provider with a list of its own is not given the catalog's models."""
        own = ir.OpenAICompatProvider("groq", "http://127.0.0.1:9/v1", ["mine"])
        with ir.Router(ir.Config([ir.AccountConfig("groq", "g")]), [own]) as router:
            with self.assertRaises(ir.UnknownModelError):
                router.explain(ir.ChatRequest("Hi", model="groq-compound"))
            self.assertEqual(self.served(router, "mine"), ["groq/mine"])


if __name__ == "__main__":
    unittest.main()
