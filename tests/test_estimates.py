"""What is reserved for an answer that nobody bounds, and what a refusal says of it."""

from __future__ import annotations

import dataclasses
import unittest
from typing import Any

from tests import ir, part
from tests.fakes import NOON, FakeClock

sizes = part("answer_sizes")
costs = part("costs")


def router(reply: Any = "a short answer", clock: Any = None, **account: Any) -> tuple[Any, Any]:
    mock = ir.MockProvider("mock", default=reply)
    config = ir.Config([ir.AccountConfig("mock", "a", **account)], default_model="mock/m")
    return ir.Router(config, [mock], clock=clock or FakeClock()), mock


def answer_of(tokens: int) -> Any:
    return ir.MockReply("words", usage=ir.Usage(10, tokens, 10 + tokens))


class Sizes(unittest.TestCase):
    def test_the_default_until_enough_is_known(self) -> None:
        """1,024 tokens are reserved until an answer is known, then a multiple of the longest, at last a quarter more than it."""
        size = sizes.AnswerSizes().of("p", "m")
        for reserve in (1024, 400, 304, 208, 128, 128):
            self.assertEqual(size.reserve, reserve)
            size.learn(100)
        size.learn(3000)
        self.assertEqual(size.reserve, 3760)
        for _ in range(64):
            size.learn(20)
        self.assertEqual(size.reserve, 32, "what is long ago is forgotten")

    def test_the_version_tells_of_changes_alone(self) -> None:
        """Who keeps what follows from the sizes sees a change of any model's, and nothing else."""
        table = sizes.AnswerSizes()
        one, other = table.of("p", "m"), table.of("p", "n")
        self.assertIs(table.of("p", "m"), one)
        seen = [other.version]
        for _ in range(4):
            one.learn(100)
            self.assertNotIn(other.version, seen)
            seen.append(other.version)
        one.learn(90)
        one.learn(0)
        self.assertEqual(other.version, seen[-1])


class Reserved(unittest.TestCase):
    def test_a_small_allowance_is_not_stranded(self) -> None:
        """An allowance of tokens serves as many short answers as fit into it, though no call bounds its answer."""
        made, _ = router(answer_of(40), daily_free=4000, quota_unit="tokens")
        with made:
            served = 0
            while True:
                try:
                    made.chat("Hi")
                except ir.NoCandidatesError:
                    break
                served += 1
            left = made.status()["a"].remaining
        self.assertEqual(served, 4000 // 50 - 1, "one answer's margin is left at the end")
        self.assertLess(left, 100)

    def test_a_limit_below_the_default_serves_all_the_same(self) -> None:
        """Where a whole limit is smaller than 1,024 tokens, the reserve is what the limit allows; what never fits is refused."""
        made, _ = router(answer_of(20), limits={"tpm": 200})
        with made:
            self.assertTrue(made.chat("Hi").text)
            with self.assertRaisesRegex(ir.NoCandidatesError, "more than the whole limit"):
                made.chat("x" * 2000)

    def test_max_tokens_is_believed(self) -> None:
        """A call that bounds its answer reserves just that, whatever was learned."""
        made, mock = router(answer_of(40), limits={"tpm": 1000})
        with made:
            for _ in range(6):
                made.chat("Hi")
            with self.assertRaises(ir.NoCandidatesError):
                made.chat("Hi", max_tokens=950)
            made.chat("Hi", max_tokens=100)
        self.assertEqual(len(mock.calls), 7)

    def test_models_are_told_apart_and_accounts_share(self) -> None:
        """What one model's answers used says nothing of another's, and holds at every account."""
        mock = ir.MockProvider("mock", default=lambda body: answer_of(900 if body["model"] == "long" else 10))
        accounts = [ir.AccountConfig("mock", name, limits={"tpm": 100_000}) for name in ("a", "b")]
        with ir.Router(ir.Config(accounts), [mock], clock=FakeClock()) as made:
            for _ in range(5):
                made.chat("Hi", model="mock/long")
                made.chat("Hi", model="mock/short")
            expected = {
                each.deployment.expected(costs.Estimate(5, 1024, open_answers=1)).output_tokens
                for name in ("long", "short")
                for each in made.explain(ir.ChatRequest("Hi", model=f"mock/{name}")).candidates
            }
        self.assertEqual(expected, {1136, 16})

    def test_several_answers_at_once(self) -> None:
        """With `n` answers wanted, each has its reserve, and each answer's share is what is learned."""
        made, _ = router(answer_of(400), limits={"tpm": 1_000_000})
        with made:
            for _ in range(5):
                made.chat("Hi", extra={"n": 4})
            found = made.explain(ir.ChatRequest("Hi")).candidates[0].deployment
        self.assertEqual(found.answers.reserve, 128)
        self.assertEqual(found.expected(costs.Estimate(5, 1024, open_answers=4)).output_tokens, 512)

    def test_all_else_of_an_estimate_stays(self) -> None:
        """Only what the answer may use is another for a model: whatever else an estimate says goes on to it."""
        facts: dict[str, Any] = {field.name: place for place, field in enumerate(dataclasses.fields(costs.Estimate), 3)}
        facts["media"] = {"image": 2}
        made, _ = router()
        with made:
            found = made.explain(ir.ChatRequest("Hi")).candidates[0].deployment
        fitted = found.expected(costs.Estimate(**facts))
        self.assertNotEqual(fitted.output_tokens, facts["output_tokens"])
        self.assertEqual(fitted, costs.Estimate(**facts | {"output_tokens": fitted.output_tokens}))

    def test_kept_assessments_follow(self) -> None:
        """Over many deployments too, what was learned changes who is free."""
        mock = ir.MockProvider("mock", default=answer_of(10))
        accounts = [ir.AccountConfig("mock", f"a{i}", daily_free=1100, quota_unit="tokens") for i in range(10)]
        with ir.Router(ir.Config(accounts, default_model="mock/m"), [mock], clock=FakeClock()) as made:
            for _ in range(400):
                made.chat("Hi")
            rest = [state.remaining for state in made.status().values()]
        self.assertEqual(len(mock.calls), 400)
        self.assertLess(max(rest), 1100 - 600)


class Said(unittest.TestCase):
    def test_a_refusal_says_what_was_needed(self) -> None:
        """The need, the part of it that is kept for the answer, what changes it, and when it frees stand in the error."""
        made, _ = router(answer_of(900), limits={"tpm": 1500})
        with made:
            made.chat("Hi")
            with self.assertRaises(ir.NoCandidatesError) as caught:
                made.chat("Hi")
        self.assertRegex(
            str(caught.exception),
            r"590 of 1500 tokens per minute left, needs 1500 tokens, 1492 of them kept for the answer "
            r"\(max_tokens= changes that\): frees in \d\d s",
        )

    def test_an_allowance_says_it_too(self) -> None:
        """A spent allowance of tokens names the need."""
        made, _ = router(answer_of(900), daily_free=1500, quota_unit="tokens")
        with made:
            made.chat("Hi")
            with self.assertRaisesRegex(
                ir.NoCandidatesError, "590 tokens left of 1500 tokens per day, needs 1500 tokens, 1492 of"
            ):
                made.chat("Hi")

    def test_explain_says_until_when_it_waits(self) -> None:
        """What would be refused now is not a candidate with 0 % left but a rejection with its time."""
        made, _ = router(limits={"rpm": 1, "rpd": 5})
        with made:
            made.chat("Hi")
            found = made.explain(ir.ChatRequest("Hi"))
            self.assertEqual(found.candidates, ())
            self.assertRegex(str(found), r"0 of 1 request per minute left, needs 1 request: frees in \d\d s")
            self.assertNotIn("0% left", str(found))
            self.assertTrue(NOON < found.rejections[0].retry_at <= NOON + 62)
            self.assertEqual(made.explain(ir.ChatRequest("Hi", max_tokens=10)).candidates, ())

    def test_status_says_until_when_it_waits(self) -> None:
        """A full limit says when some of it frees, in the zone where its day begins."""
        made, _ = router(daily_free=1, reset="America/Los_Angeles", limits={"rpm": 5})
        with made:
            made.chat("Hi")
            shown = str(made.status())
        self.assertIn("allowance: 1 of 1 requests per day; full, waits until some frees in 20 h (00:00 Pacific)", shown)
        self.assertNotIn("rpm: 1 of 5 requests per minute;", shown)

    def test_holds_name_their_model(self) -> None:
        """A hold of one model says which."""
        made, _ = router(404)
        with made:
            with self.assertRaises(ir.AllCandidatesFailedError):
                made.chat("Hi")
            self.assertRegex(str(made.status()), r"held until \S+ \S+ UTC: ModelNotFound \(404\), for m alone")


class TooShort(unittest.TestCase):
    def told(self, seconds: float, reset: str = "America/Los_Angeles", **bounds: Any) -> str:
        """What a call says that would have to wait for midnight at `reset`, which is so many seconds away."""
        clock = FakeClock(NOON + 20 * 3600 - seconds)
        made, _ = router(clock=clock, daily_free=1, reset=reset)
        with made:
            made.chat("Hi")
            with self.assertRaises(ir.NoCandidatesError) as caught:
                made.chat("Hi", **bounds)
        return str(caught.exception)

    def test_max_wait(self) -> None:
        """A wait that was allowed but is too short is told beside the one that is needed, on the limit's own clock."""
        shown = self.told(25 * 60, max_wait=60)
        self.assertIn("free in 25 min (00:00 Pacific), and 60 s of max_wait are too short for the 25 min needed", shown)

    def test_timeout(self) -> None:
        """Where the timeout is what is too short, it is named."""
        self.assertIn("30 s of timeout are too short for the 25 min needed", self.told(25 * 60, timeout=30, max_wait=3600))

    def test_no_wait_allowed(self) -> None:
        """Without any, the wait that would do is told."""
        self.assertIn("wait (max_wait=1500 does it for you)", self.told(25 * 60))


if __name__ == "__main__":
    unittest.main()
