"""Resting and waking accounts by hand: what a wish does, and what is said where it could not be carried out."""

from __future__ import annotations

import unittest
from typing import Any

from tests import ir
from tests.fakes import HELLO, EveryHook, FakeClock, account, alias_of

OVERLOADED = ir.MockReply(status=503, body="The model is overloaded")


class Broken(ir.MemoryQuotaStore):
    """Fails to hold once it is told to."""

    broken = False

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        if self.broken:
            raise OSError("disk gone")
        super().hold(key, until, reason, now)


class Resting(unittest.TestCase):
    def setUp(self) -> None:
        self.clock, self.meter, self.store = FakeClock(), EveryHook(), Broken()

    def router(self, *replies: Any, **config: Any) -> Any:
        settings = ir.Config([account("a", provider="sim")], [alias_of("sim")], **config)
        provider = ir.MockProvider("sim", replies)
        router = ir.Router(settings, [provider], quota_store=self.store, clock=self.clock, meter=self.meter)
        self.addCleanup(router.close)
        return router

    def test_a_wish_that_fails_is_told(self) -> None:
        """A store that cannot hold, or was closed, is an error that says what did not happen, of resting as of waking."""
        router = self.router()
        router.rest("a", 60)
        self.store.broken = True
        for seconds, what in ((5, "account 'a' was not put to rest"), (0, "account 'a' was not woken")):
            with self.assertRaises(ir.QuotaStoreError) as caught:
                router.rest("a", seconds)
            self.assertIn(what, str(caught.exception))
            self.assertIn("OSError", str(caught.exception))
            self.assertEqual([hold.until for hold in router.status()["a"].holds], [self.clock.now + 60])
        self.store.broken = False
        self.store.close()
        with self.assertRaises(ir.QuotaStoreError) as caught:
            router.rest("a", 5)
        self.assertIn("was not put to rest, as the quota store failed: the quota store is closed", str(caught.exception))

    def test_a_store_that_is_ignored(self) -> None:
        """Where a failing store is ignored the wish is kept in memory, and the warnings say for how long."""
        router = self.router(on_store_error="ignore")
        self.store.broken = True
        router.rest("a", 60)
        (said,) = [text for text in router.warnings if text.startswith("rest")]
        self.assertIn("in this process's memory alone, as the quota store fails", said)

    def test_a_closed_router(self) -> None:
        """A closed router says so, and holds nothing, in a store of the caller's own either."""
        router = self.router()
        router.close()
        for seconds in (5, 0):
            with self.assertRaisesRegex(ir.InferRouterError, "this router is closed"):
                router.rest("a", seconds)
        self.assertEqual(self.store.holds(self.clock.now), {})

    def test_a_reason_is_a_text(self) -> None:
        """Anything else is refused, so that no call stumbles over it later."""
        router = self.router()
        for reason in (None, 5, b"why"):
            with self.assertRaises(ir.InvalidRequestError):
                router.rest("a", 5, reason)
        self.assertTrue(router.chat_completion(HELLO).text)

    def test_waking_forgets_an_overload(self) -> None:
        """An account that is woken may be asked for its overloaded model at once."""
        router = self.router(OVERLOADED, "back")
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HELLO)
        with self.assertRaises(ir.NoCandidatesError):
            router.chat_completion(HELLO)
        router.rest("a", 0)
        self.assertEqual(router.chat_completion(HELLO).text, "back")


if __name__ == "__main__":
    unittest.main()
