"""Why deployments were not tried, and in words what would help.

Strategy: a rejection is a value with its reason and when that ends; sentences are made when an error is shown, not before. Must
never know how a deployment was judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .frozen import frozen_value
from .moments import moment_in_words, span_in_words, utc_in_words

NOT_BY_TIME = ("held: ModelNotFound", "held: AddressNotFound")
"""How the reasons of rejections begin that a correction ends: what is held is asked again in time, and fails again."""


@frozen_value
class Rejection:
    """Why one candidate was left out. `retry_at`: epoch seconds when that may change, None if waiting does not help.

    `zone`: the time zone whose clock says when, "" for the reader's own.
    """

    provider: str
    account_id: str
    model: str
    reason: str
    retry_at: float | None = None
    code: str = ""
    zone: str = ""

    def __str__(self) -> str:
        return printable(f"{self.provider}/{self.account_id} ({self.model}): {self.reason}")


@frozen_value
class Patience:
    """How an error came to end the waiting. `now`: epoch seconds when it was raised; `seconds` that `bound` (max_wait or timeout)
    left for a wait, 0 where nothing was allowed."""

    now: float
    seconds: float = 0.0
    bound: str = "max_wait"


def reasons(rejections: Sequence[Rejection]) -> str:
    """Every rejection, those of one account with the same reason as one."""
    groups: dict[tuple[str, str, str], dict[str, None]] = {}
    for each in rejections:
        groups.setdefault((each.provider, each.account_id, each.reason), {})[each.model] = None
    return "; ".join(
        printable(f"{provider}/{account_id} ({model_names(list(models))}): {reason}")
        for (provider, account_id, reason), models in groups.items()
    )


def ways_on(rejections: Sequence[Rejection], retry_at: float | None, patience: Patience | None) -> str:
    """What waiting until `retry_at`, or something else, would do for the caller. `patience` is None where it is unknown."""
    if retry_at is None:
        return _mended_by(rejections)
    if patience is None:
        return f"The soonest is free at {utc_in_words(retry_at)}: wait (max_wait does it for you), or add an account."
    first = next((each for each in rejections if each.retry_at == retry_at), None)
    if first is not None and first.reason.startswith(NOT_BY_TIME):
        others = [each for each in rejections if each.retry_at and not each.reason.startswith(NOT_BY_TIME)]
        if not others:
            what = "the model's name with the provider, and that the account may use it; the model"
            what = "base_url; the address" if "Address" in first.reason else what
            return f"Check {what} is asked again {moment_in_words(retry_at, patience.now)}."
        first = min(others, key=lambda each: each.retry_at or 0.0)
        retry_at = first.retry_at or 0.0
    when = moment_in_words(retry_at, patience.now, "" if first is None else first.zone)
    soonest = f"The soonest is free {when}"
    needed = retry_at - patience.now
    if 0 < patience.seconds < needed:
        short = f"{span_in_words(patience.seconds)} of {patience.bound} are too short for the {span_in_words(needed)} needed"
        return f"{soonest}, and {short}: raise {patience.bound}, or add an account."
    if patience.seconds >= needed:
        return f"{soonest}: ask again then, or add an account."
    return f"{soonest}: wait (max_wait={max(1, math.ceil(needed))} does it for you), or add an account."


def _mended_by(rejections: Sequence[Rejection]) -> str:
    """What helps where no time does."""
    codes = {each.code for each in rejections}
    if "held" in codes:  # without a time to wait for: a key that was refused
        package = __name__.rpartition(".")[0]
        return (
            f"Correct the key, and it is asked at once; python3 -m {package} doctor asks the same one again, and ends the "
            "hold if it serves."
        )
    steps = ["add an account"]
    if "paid_not_allowed" in codes or not codes:
        steps.append("allow paid use (allow_paid = true; --paid in a command without a configuration)")
    if codes != {"paid_not_allowed"}:
        steps.append("change the request")
    return f"Waiting does not help: {', '.join(steps[:-1])}{',' * (len(steps) > 2)} or {steps[-1]}."


def model_names(names: Sequence[str]) -> str:
    """One name, or the first with how many more there are."""
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} more"


def printable(text: str) -> str:
    """`text` with what is not printable (line breaks, controls, what turns the writing around) as Python escapes it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
