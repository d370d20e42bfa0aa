"""Conversations: each stays on one account and model while that may serve, without anything being remembered."""

from __future__ import annotations

import unittest
from collections import Counter
from typing import Any

from tests import ir, part
from tests.cases import RouterCase, free, paid
from tests.fakes import HELLO, METHODS, FakeClock, account

policy, records = part("policy"), part("records")

NAMES = tuple("abcdef")


def said(session: str | None) -> Any:
    return ir.ChatRequest("Hello!", model="chat", max_tokens=50, session=session)


class Kept(RouterCase):
    def served(self, router: Any, session: str | None, calls: int = 1) -> list[str]:
        return [router.chat_completion(said(session)).routing.account_id for _ in range(calls)]

    def test_a_session_stays(self) -> None:
        """Calls of one session go to one account, while those without take turns; sessions spread over all accounts."""
        router = self.router(*(free(name, 1000) for name in NAMES))
        self.assertEqual(len(set(self.served(router, None, 6))), 6)
        homes = {}
        for number in range(60):
            session = f"s{number}"
            [homes[session]] = set(self.served(router, session, 3))
        self.assertEqual(set(homes.values()), set(NAMES))
        self.assertLess(max(Counter(homes.values()).values()), 25)
        again = self.router(*(free(name, 1000) for name in reversed(NAMES)))
        self.assertEqual({session: self.served(again, session)[0] for session in homes}, homes)

    def test_streams_and_explain_agree(self) -> None:
        """A stream of a session goes where its other calls go, and explain says so; what is sent does not name it."""
        router = self.router(*(free(name, 1000) for name in NAMES))
        for number in range(5):
            request = said(f"session-{number}")
            first = router.explain(request).candidates[0].account_id
            self.assertEqual({method(router, request).routing.account_id for method in METHODS.values()}, {first})
        self.assertNotIn("session-", repr(self.simulator.log[-1]))

    def test_failover_moves_only_its_own(self) -> None:
        """While an account is held its sessions go elsewhere, each to one other; all others stay; afterwards they come back."""
        clock = FakeClock()
        router = self.router(*(free(name, 1000) for name in NAMES), clock=clock)
        sessions = [f"s{number}" for number in range(30)]
        homes = {session: self.served(router, session)[0] for session in sessions}
        gone = homes["s0"]
        router._ledger.hold(gone, clock.time() + 60, "resting", clock.time())
        moved = {session: self.served(router, session, 2) for session in sessions}
        for session, home in homes.items():
            self.assertEqual(len(set(moved[session])), 1)
            self.assertEqual(moved[session][0] == home, home != gone)
        clock.advance(61)
        self.assertEqual({session: self.served(router, session)[0] for session in sessions}, homes)

    def test_a_failure_within_the_call(self) -> None:
        """A call that fails at home goes on to the session's next place."""
        router = self.router(*(free(name, 1000) for name in NAMES))
        first, second = (each.account_id for each in router.explain(said("x")).candidates[:2])
        self.simulator.fail_next(status=503)
        answer = router.chat_completion(said("x"))
        self.assertEqual((answer.routing.account_id, answer.routing.attempts), (second, 2))
        self.assertNotEqual(first, second)

    def test_free_comes_first(self) -> None:
        """A session never costs anything while something free is left, nor more than the cheapest."""
        accounts = (paid("dear", cost_per_input_token=1.0), paid("cheap"), free("f", 3), free("g", 3))
        router = self.router(*accounts, config={"allow_paid": True})
        served = [self.served(router, f"s{number}")[0] for number in range(8)]
        self.assertEqual(Counter(served[:6]), {"f": 3, "g": 3})
        self.assertEqual(served[6:], ["cheap", "cheap"])


class Orders(unittest.TestCase):
    def test_a_declared_order_of_models_stays(self) -> None:
        """Where the order itself was asked for, a session chooses among the accounts of one model and no further."""
        accounts = [account(name, provider="mock") for name in "ab"]
        two = ir.ModelMapping("both", [ir.ModelRef("mock", "one"), ir.ModelRef("mock", "two")])
        config = ir.Config(accounts, [two], policy="declared_order")
        with ir.Router(config, [ir.MockProvider("mock")]) as router:
            for number in range(20):
                request = ir.ChatRequest("hi", model="both", session=f"s{number}")
                self.assertEqual([each.model for each in router.explain(request).candidates], ["one", "one", "two", "two"])

    def test_wrong_names(self) -> None:
        """A session is a name."""
        for wrong in ("", 5, b"x", ["s"]):
            with self.assertRaisesRegex(ir.InvalidRequestError, "session"):
                ir.ChatRequest("hi", session=wrong)
        self.assertIsNone(HELLO.session)


if __name__ == "__main__":
    unittest.main()
