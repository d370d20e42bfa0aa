"""Three accounts with small allowances: who is chosen, what is left, and what happens when all is spent."""

from __future__ import annotations

from _start import ir

accounts = [
    ir.AccountConfig(provider="mock", id="alice", daily_free=3),
    ir.AccountConfig(provider="mock", id="bob", daily_free=2),
    ir.AccountConfig(
        provider="mock",
        id="paid",
        paid_enabled=True,
        cost_per_input_token=1e-6,
        cost_per_output_token=2e-6,
        max_daily_spend=0.003,
    ),
]
config = ir.Config(accounts=accounts, allow_paid=True, default_model="mock/any")

with ir.Router(config, [ir.MockProvider("mock", default="Hello!")]) as router:
    print(router.explain(ir.ChatRequest("Hello?")))
    for number in range(1, 9):
        try:
            where = router.chat_completion(ir.ChatRequest("Hello?")).routing
            print(f"call {number}: {where.account_id}, {'free' if where.free else f'${where.cost:.6f}'}")
        except ir.NoCandidatesError as error:
            print(f"call {number}: {error}")
            break
    for account in router.status().values():
        print(account)
