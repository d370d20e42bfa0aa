"""Writes a configuration to begin with, made of the keys that the environment holds (`init`).

Strategy: the same accounts and aliases as without a configuration, written out with comments, so that each can be changed. Keys
stay in the environment: the file names variables. It is made for its owner alone and never over a file. Must never write a key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .account import AccountConfig
from .catalog import offer, preset
from .cli_common import CONFIG_NAMES, DONE, PROGRAM, Console, add_json, state_file
from .config import ModelMapping, ModelRef
from .environment import accounts_from_env, aliases_over, variables_of
from .errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

WHY = {
    "free": "every free model, best first",
    "any": "free ones, then paid ones",
    "fast": "fast ones, fastest first",
    "smart": "the best ones",
    "vision": "those that see pictures",
    "embed": "those that make vectors",
}


def add_init(parser: ArgumentParser) -> None:
    """What `init` takes."""
    parser.add_argument("file", metavar="FILE", nargs="?", default=CONFIG_NAMES[0], help=f"default: {CONFIG_NAMES[0]}")
    add_json(parser)
    parser.set_defaults(run=init)


def init(options: Namespace, console: Console) -> int:
    """Write the file. Raises `ConfigError` where there is no key, or the file is there already."""
    path = Path(options.file)
    accounts, variables = accounts_from_env(os.environ).required(), variables_of(os.environ)
    if path.suffix != ".toml":
        raise ConfigError(f"{path}: init writes TOML; give it a name that ends in .toml")
    text = configuration(accounts, variables, datetime.fromtimestamp(time.time(), UTC).date().isoformat())
    _write(path, text)
    if options.json:
        console.data({"file": str(path), "accounts": [account.id for account in accounts]})
        return DONE
    count = "1 account" if len(accounts) == 1 else f"{len(accounts)} accounts"
    console.out.line(f"{path}: {count}, readable by you alone; the keys stay in the environment")
    console.out.line(f"next: {PROGRAM} check {path}")
    return DONE


def configuration(accounts: Sequence[AccountConfig], variables: Mapping[str, str], today: str) -> str:
    """The text of the file. `variables`: by an account's id, the variable that holds its key; `today`: ISO date."""
    nobody = "" if any(account.paid_enabled for account in accounts) else " (there is none here)"
    aliases = aliases_over(accounts)
    default = next((mapping.alias for mapping in aliases if mapping.alias == "free"), aliases[0].alias if aliases else "")
    head = [
        f"# Made on {today} from the keys of the environment. ${{NAME}} is replaced when the file is read.",
        f"# {PROGRAM} check     what is wrong with it, and who serves each alias",
        f"# {PROGRAM} status    what is left of every limit",
        "",
        f"default_model = {_text(default)}        # the alias, model or provider/model of a request that names none",
        'policy = "best_first"         # in the order of each alias; "free_first" balances over accounts',
        "max_wait = 60                 # seconds a call may wait for a free slot; 0: it fails at once",
        'auth_errors = "next"          # a refused key moves on to the next account; "raise" stops there',
        f"allow_paid = false            # true: accounts with paid_enabled may cost money{nobody}",
        "",
        "[quota]",
        'store = "sqlite"              # counts survive restarts and are shared by every program that names this file',
        f"path = {_text(str(state_file(os.environ)))}",
        "",
    ]
    return "\n".join((*head, *(_alias(mapping) for mapping in aliases), *(_account(each, variables) for each in accounts)))


def _alias(mapping: ModelMapping) -> str:
    steps = [_step(step) for step in mapping.models]
    return "\n".join(
        ["[[models]]", f"alias = {_text(mapping.alias)}  # {WHY.get(mapping.alias, '')}", "models = [", *steps, "]", ""]
    )


def _step(step: ModelRef) -> str:
    known = offer(step.provider, step.model)
    note = "" if known is None else f"  # tier {known.tier} of 5 ({known.as_of})"
    return f"    {{ provider = {_text(step.provider)}, model = {_text(step.model)} }},{note}"


def _account(account: AccountConfig, variables: Mapping[str, str]) -> str:
    row = preset(account.provider)
    lines = [
        "[[accounts]]",
        f"provider = {_text(account.provider)}",
        f"id = {_text(account.id)}",
        f'auth = {{ api_key = "${{{variables[account.id]}}}" }}',
        "optional = true               # left out where the variable is not set",
    ]
    if account.base_url:
        lines.append(f"base_url = {_text(account.base_url)}")
    if row.free:
        lines.append(
            f'limits = "catalog"            # what is free there, as of {row.as_of}; or your own: {{ rpm = 5, rpd = 20 }}'
        )
        lines.append(f"reset = {_text(account.reset)}           # where its day begins")
    else:
        lines.append("paid_enabled = true           # no free tier is known; used only with allow_paid = true")
        lines.append("# max_daily_spend = 0.50      # dollars a day; needs cost_per_input_token and cost_per_output_token")
    if row.terms:
        lines.append(f"# terms: {row.terms}")
    return "\n".join((*lines, ""))


def _text(value: str) -> str:
    """A TOML string."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write(path: Path, text: str) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise ConfigError(f"{path}: is there already, and is left as it is; name another file, or move it away") from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be made: {exc.strerror}; check the folder") from exc
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
