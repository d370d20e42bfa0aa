"""Policies: the order in which candidates are tried. And the machine's clock."""

from __future__ import annotations

import time
import unittest
from typing import NamedTuple

from tests import part

errors, meter, policy = (part(name) for name in ("errors", "meter", "policy"))


class Runner(NamedTuple):
    """The least that a policy sees."""

    account_id: str
    free: bool = True
    share: float = 1.0
    price: float | None = None
    in_flight: int = 0
    provider: str = "p"
    model: str = "m"


def order(name: str, *runners: Runner) -> str:
    return "".join(runner.account_id for runner in policy.policy_named(name).select(runners))


class Order(unittest.TestCase):
    def test_free_first(self) -> None:
        """Free before paid however cheap; the largest share first; paid by price, unpriced last."""
        runners = (
            Runner("a", free=False, price=None),
            Runner("b", free=False, price=2e-6),
            Runner("c", share=0.2),
            Runner("d", free=False, price=1e-6),
            Runner("e", share=0.9, price=5.0),
            Runner("f", free=False, price=0.0),
        )
        self.assertEqual(order("free_first", *runners), "ecfdba")

    def test_free_first_keeps_declared_order_in_ties(self) -> None:
        """Equal shares, equal prices and no prices stay as declared."""
        free = [Runner(name, share=0.5) for name in "cab"]
        paid = [Runner(name, free=False, price=price) for name, price in zip("zyxw", (1.0, None, 1.0, None), strict=True)]
        self.assertEqual(order("free_first", *paid, *free), "cabzxyw")

    def test_what_is_free_for_certain(self) -> None:
        """Where nothing may cost anything, nobody is asked for it, and each policy's order is the same."""
        runners = [
            Runner(name, share=share, in_flight=len(name)) for name, share in zip("abcde", (0.5, 1.0, 0.5, 0.0, 1.0), strict=True)
        ]
        for name in ("free_first", "best_first", "cost_first", "least_busy", "declared_order"):
            found = policy.own_order(policy.policy_named(name), runners, all_free=True)
            self.assertEqual("".join(runner.account_id for runner in found), order(name, *runners), name)

    def test_paid_candidates_do_not_go_by_share(self) -> None:
        """Among paid ones the share does not count."""
        self.assertEqual(order("free_first", Runner("a", False, 0.1, 1.0), Runner("b", False, 0.9, 1.0)), "ab")

    def test_cost_first(self) -> None:
        """Free costs nothing whatever its stated price; unpriced comes last; ties stay."""
        runners = (Runner("a", False, price=None), Runner("b", False, price=1.0), Runner("c", price=9.0), Runner("d", share=0.1))
        self.assertEqual(order("cost_first", *runners), "cdba")
        self.assertEqual(order("cost_first", Runner("a", False, price=0.0), Runner("b")), "ab")

    def test_least_busy(self) -> None:
        """Fewest calls under way first; ties stay."""
        self.assertEqual(
            order("least_busy", Runner("a", in_flight=2), Runner("b", in_flight=1), Runner("c", False, in_flight=1)), "bca"
        )

    def test_declared_order(self) -> None:
        """The declared order is left as it is."""
        self.assertEqual(order("declared_order", Runner("b", False), Runner("a")), "ba")

    def test_best_first(self) -> None:
        """In the order of the models, accounts of one by what is left; what is full after what is not, paid last by price."""
        runners = (
            Runner("a", model="best", share=0.0),
            Runner("b", model="best", share=0.2),
            Runner("c", model="best", share=0.9),
            Runner("d", free=False, price=2.0, model="best"),
            Runner("e", model="next", share=1.0),
            Runner("f", free=False, price=1.0, model="last"),
        )
        self.assertEqual(order("best_first", *runners), "cbeafd")

    def test_nothing_in_nothing_out(self) -> None:
        """No policy minds having nothing to order, and none changes what it was given."""
        for name in part("config").POLICIES:
            self.assertEqual(order(name), "")
            given = [Runner("b", False, in_flight=1), Runner("a")]
            policy.policy_named(name).select(given)
            self.assertEqual([runner.account_id for runner in given], ["b", "a"])

    def test_names_are_those_of_the_configuration(self) -> None:
        """Every policy a configuration may name exists; another name is a ConfigError that lists them."""
        kinds = {
            "free_first": policy.FreeFirstPolicy,
            "cost_first": policy.CostFirstPolicy,
            "least_busy": policy.LeastBusyPolicy,
            "declared_order": policy.DeclaredOrderPolicy,
            "best_first": policy.BestFirstPolicy,
        }
        self.assertEqual(set(part("config").POLICIES), set(kinds))
        for name, kind in kinds.items():
            self.assertIsInstance(policy.policy_named(name), kind)
        with self.assertRaises(errors.ConfigError) as caught:
            policy.policy_named("cheapest")
        self.assertIn("free_first, cost_first, least_busy, declared_order", str(caught.exception))


class Clocks(unittest.TestCase):
    def test_the_system_clock_is_the_machines(self) -> None:
        """`time`, `monotonic` and `sleep` are those of the stdlib."""
        made = meter.SystemClock()
        self.assertAlmostEqual(made.time(), time.time(), delta=5)
        self.assertAlmostEqual(made.monotonic(), time.monotonic(), delta=5)
        made.sleep(0)


if __name__ == "__main__":
    unittest.main()
