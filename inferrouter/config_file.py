"""Reads a configuration from a .toml or .json file.

Strategy: look at the file before opening it, read it whole up to a cap, parse it strictly; then put the environment's variables
into string values and build the parts, then the whole, gathering what is wrong on any of these levels. The parsers' errors
hold the file's text, so they end here as words; the one `ConfigError` is raised where no local variable holds the text or the
environment, since a traceback may show locals. Must never know a key, nor repeat a value in a problem.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .account import AccountConfig, Auth
from .config import Config, ModelMapping, ModelRef, QuotaConfig, provider_problems
from .errors import ConfigError
from .secret import Secret
from .spelling import misspelt
from .transport_config import TransportConfig
from .validation import describe_type, did_you_mean, names_credential, shown_name

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 16


def load_config(
    path: str | os.PathLike[str],
    *,
    env: Mapping[str, str] | None = None,
    known_providers: Collection[str] = (),
    key_variables: Collection[str] = (),
) -> tuple[Config, tuple[str, ...]]:
    """The configuration in the file `path` (.toml or .json), and warnings about the file.

    `env`: where `${VAR}` and `${VAR:-default}` are looked up, None: the process's environment. `known_providers`: names an
    account may use without a base_url; empty: any. `key_variables`: variables of different providers' keys, none of which is
    asked after in the place of another. A relative `quota.path` or `transport.ca_file` begins in the file's folder,
    `~` is the user's home. Raises `ConfigError` that lists every problem: an unusable file, missing variables, unknown keys,
    wrong values.
    """
    reader = _read(path, env, known_providers, key_variables)
    del env  # a traceback with locals would show it
    return reader.result()


def names_a_store(path: str | os.PathLike[str]) -> bool:
    """Whether the file says itself where use is counted; True too for a file that cannot be read: `load_config` says why."""
    try:
        raw, _ = _bytes(Path(path))
        table = _parsed(raw, Path(path).suffix.lower(), [])
    except _UnusableError:
        return True
    quota = table.get("quota") if isinstance(table, Mapping) else None
    return isinstance(quota, Mapping) and "store" in quota


class _UnusableError(Exception):
    """Why a file cannot be used, in words that follow its path."""


def _read(
    path: object, env: Mapping[str, str] | None, known_providers: Collection[str], key_variables: Collection[str]
) -> TableReader:
    """A reader that has read everything, problems included."""
    if not isinstance(path, (str, os.PathLike)):
        reader = TableReader(env)
        reader.problems.append("the path of the configuration must be a string or a Path")
        return reader
    file = Path(path)
    reader = TableReader(env, file.parent, key_variables)
    faults: list[str] = []
    try:
        raw, open_to_others = _bytes(file)
        data = _parsed(raw, file.suffix.lower(), faults)
    except _UnusableError as exc:
        faults.append(str(exc))
    else:
        reader.build(data, known_providers)
        if reader.holds_key and open_to_others:
            reader.warnings.append(
                f"{file}: holds a key as plain text and other users can read it; "
                "write ${VARIABLE} instead, or take their permission away (chmod 600)"
            )
    if faults:
        reader.problems[:0] = [f"{file}: {fault}" for fault in faults]
        reader.config = None
    return reader


def _bytes(file: Path) -> tuple[bytes, bool]:
    """The file's content, and whether other users may read it."""
    try:
        facts = os.stat(file)
        if not stat.S_ISREG(facts.st_mode):
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
            raise _UnusableError(f"is {kind}; name a .toml or .json file")
        with open(file, "rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as exc:
        raise _UnusableError("does not exist; check the path, a relative one begins in the current folder") from exc
    except OSError as exc:
        raise _UnusableError(f"cannot be read: {exc.strerror}; check the path and its permissions") from exc
    except ValueError as exc:
        raise _UnusableError("is not the path of a file") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise _UnusableError(f"is larger than {MAX_FILE_BYTES} bytes, which no configuration is; check the path")
    # Windows has no such bits: it shows every file as readable by all.
    return raw, os.name == "posix" and bool(facts.st_mode & 0o044)


def _parsed(raw: bytes, suffix: str, faults: list[str]) -> Any:
    """What the file's text means; what is wrong but can be read past goes to `faults`."""
    try:
        text = raw.decode("utf-8-sig")
        if suffix == ".json":
            return _parsed_json(text, faults)
        if suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
    except UnicodeDecodeError as exc:
        raise _UnusableError(f"is not UTF-8 at byte {exc.start}; save it as UTF-8") from exc
    except RecursionError as exc:
        raise _UnusableError("is nested too deeply") from exc
    except ValueError as exc:
        kind = suffix[1:].upper()
        advice = _written(exc, text, kind) or _likely(str(exc))
        raise _UnusableError(f"is not valid {kind}: {exc}{advice and f'; {advice}'}") from exc
    raise _UnusableError("has no known ending; it must be .toml or .json")


def _likely(said: str) -> str:
    """What is most likely wrong where a parser said `said`, as far as it can be told."""
    return next((words for begin, words in _LIKELY.items() if said.startswith(begin)), "")


def _written(fault: ValueError, text: str, kind: str) -> str:
    """How a file of this `kind` writes the true, false or nothing that stands in another language's words where `fault` is in
    `text`; "" where something else stands there, or no value belongs."""
    if not str(fault).startswith(("Invalid value", "Expecting value")):
        return ""
    if isinstance(fault, json.JSONDecodeError):
        rest = text[fault.pos :]
    else:
        place = _PLACE.search(str(fault))
        rest = text.replace("\r\n", "\n").split("\n")[int(place[1]) - 1][int(place[2]) - 1 :] if place else ""
    word = _BARE_WORD.match(rest)
    if word is None or word[1].lower() not in _MEANT:
        return ""
    meant = _MEANT[word[1].lower()]
    if not meant:
        return "to say nothing, leave that setting out"
    return f"{kind} writes {meant}" + (", in lower case" if word[1].lower() == meant else f" for {word[1]}")


_PLACE = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)")
_BARE_WORD = re.compile(r"([A-Za-z]{2,5})[ \t]*(?:[],}#\r\n]|\Z)")
_MEANT = dict.fromkeys(("true", "yes", "on"), "true") | dict.fromkeys(("false", "no", "off"), "false")
_MEANT |= dict.fromkeys(("none", "null", "nil"), "")
"""What bare words mean that other languages have, "" for nothing."""


_LIKELY = {
    "Invalid value": 'most likely a text without quotes: write key = "text"',
    "Illegal character": "most likely a quote is missing at the text's end",
    "Expected": "most likely a quote, a bracket or an equals sign is missing there",
    "Unclosed": "most likely a bracket or a comma is missing before it",
    "Expecting property name": "most likely a key without double quotes, or a comma too many before it",
    "Expecting value": "most likely a text without double quotes, or a comma too many",
    "Expecting": "most likely a comma, a colon or a quote is missing before it",
    "Unterminated string": "most likely a quote is missing at the text's end",
    "Invalid control character": "most likely a quote is missing at the text's end",
}


def _parsed_json(text: str, faults: list[str]) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, value in pairs:
            if key in table:
                faults.append(f"has the key {shown_name(key)!r} twice in one table")
            table[key] = value
        return table

    def no_number(word: str) -> None:
        faults.append(f"has {word}, which is not a JSON number")

    return json.loads(text, object_pairs_hook=once, parse_constant=no_number)


_SET_OR_LEAVE_OUT = (
    'set it, or write optional = true (in JSON "optional": true) beside this account\'s provider and id '
    "to leave the account out while it is not set"
)
_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")
_ONLY_VARIABLES = re.compile(r"(?:\$\{[A-Za-z_][A-Za-z0-9_]*(?::-)?\})+")
_NUMBER = re.compile(r"_[0-9]{1,4}\Z")
_ACCOUNT_INDEX = re.compile(r"accounts\[(\d+)\]")


class TableReader:
    """One reading. `problems` and `warnings` grow; `config` stays None when there is a problem; `holds_key`: as text.

    `env` and `key_variables`: as for `load_config`. `folder`: where a relative quota.path begins, None: left as it is.
    """

    def __init__(
        self, env: Mapping[str, str] | None = None, folder: Path | None = None, key_variables: Collection[str] = ()
    ) -> None:
        self.env = os.environ if env is None else env
        self.folder = folder
        self.key_variables = key_variables
        self.holds_key = False
        self.config: Config | None = None
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def result(self) -> tuple[Config, tuple[str, ...]]:
        """The configuration and the warnings. Raises `ConfigError` with all problems."""
        if self.config is None:
            raise ConfigError(self.problems)
        return self.config, tuple(self.warnings)

    def build(self, data: object, known_providers: Collection[str] = ()) -> None:
        """Read the top-level table `data`; never raises for what is in it."""
        table = self._table(data, _names(Config), (), "")
        values = {
            key: self._expanded(value, key, self.problems)
            for key, value in table.items()
            if key not in ("accounts", "models", "quota", "transport")
        }
        tables = enumerate(self._tables(table.get("accounts", []), "accounts"))
        numbered = [(i, account) for i, each in tables if (account := self._account(each, f"accounts[{i}]"))]
        values["accounts"] = [account for _, account in numbered]
        models = enumerate(self._tables(table.get("models", []), "models"))
        values["models"] = [self._mapping(each, f"models[{i}]") for i, each in models]
        values["quota"] = self._quota(table.get("quota", {}))
        known = [name for name in _names(TransportConfig) if name != "ssl_context"]
        values["transport"] = TransportConfig(**self._part(table.get("transport", {}), known, "transport", "ca_file"))
        kept = [i for i, _ in numbered]
        try:
            config = Config(**values)
        except ConfigError as exc:
            self._add([_renumbered(problem, kept) for problem in exc.problems])
        if known_providers:
            self._add([_renumbered(problem, kept) for problem in provider_problems(values["accounts"], known_providers)])
        if not self.problems:
            self.config = config

    def _add(self, found: list[str]) -> None:
        """Take `found` over, apart from what only follows from a problem known at the same place or above it."""
        known = {problem.partition(": ")[0] for problem in self.problems}
        self.problems += [problem for problem in found if known.isdisjoint(_places(problem))]

    def _account(self, table: object, path: str) -> AccountConfig | None:
        """The account in `table`; None for an optional one whose variables are missing, with a warning."""
        missing: list[str] = []
        values = self._table(table, _names(AccountConfig), ("provider", "id"), path, hint="auth.api_key")
        special: dict[str, Any] = {
            "auth": self._auth(values.pop("auth", {}), f"{path}.auth", missing),
            "headers": self._headers(values.pop("headers", {}), f"{path}.headers", missing),
        }
        plain = {key: self._expanded(value, f"{path}.{key}", missing) for key, value in values.items()}
        if missing and plain.get("optional") is True:
            self.warnings += [f"{problem}, so this optional account is left out" for problem in missing]
            return None
        self.problems += [f"{problem}; {_SET_OR_LEAVE_OUT}" for problem in missing]
        return AccountConfig(**plain, **special)

    def _auth(self, value: object, path: str, missing: list[str]) -> Auth:
        if isinstance(value, str):
            self.problems.append(f'{path}: must be a table, not a string: write auth = {{ api_key = "..." }}')
            return Auth()
        key = self._table(value, ("api_key",), (), path).get("api_key", "")
        if not isinstance(key, str):
            return Auth(key)
        self.holds_key |= bool(key) and not _ONLY_VARIABLES.fullmatch(key)
        return Auth(self._text(key, f"{path}.api_key", missing, secret=True))

    def _headers(self, table: object, path: str, missing: list[str]) -> object:
        """Headers; one that a variable is put into is kept as a secret."""
        if not isinstance(table, Mapping):
            return table
        headers = dict(table)
        for name, text in table.items():
            if isinstance(text, str) and "$" in text:
                prefix, mark, rest = text.partition("$")
                value = self._text(mark + rest, f"{path}.{shown_name(name)}", missing, secret=True)
                headers[name] = Secret(value, prefix) if prefix else Secret.of_header(value)
            self.holds_key |= bool(text) and isinstance(text, str) and "$" not in text and names_credential(str(name))
        return headers

    def _mapping(self, table: object, path: str) -> ModelMapping:
        values = self._table(table, _names(ModelMapping), ("alias", "models"), path)
        steps = enumerate(self._tables(values["models"] or [], f"{path}.models"))
        refs = [self._ref(step, f"{path}.models[{i}]") for i, step in steps]
        return ModelMapping(self._expanded(values["alias"], f"{path}.alias", self.problems), refs)

    def _ref(self, table: object, path: str) -> ModelRef:
        if isinstance(table, str):
            self.problems.append(f'{path}: must be a table such as {{ provider = "...", model = "..." }}, not a string')
            return ModelRef("", "")
        values = self._table(table, _names(ModelRef), _names(ModelRef), path)
        return ModelRef(**{k: self._expanded(value, f"{path}.{k}", self.problems) for k, value in values.items()})

    def _quota(self, table: object) -> QuotaConfig:
        url = None
        if isinstance(table, Mapping) and isinstance(table.get("url"), str):
            self.holds_key |= "@" in _VARIABLE.sub("", table["url"])  # it may hold a password
            url = Secret(self._text(table["url"], "quota.url", self.problems, secret=True))
            table = {key: value for key, value in table.items() if key != "url"}
        return QuotaConfig(**{**self._part(table, _names(QuotaConfig), "quota", "path"), **({"url": url} if url else {})})

    def _part(self, table: object, known: Collection[str], name: str, file: str) -> dict[str, Any]:
        """The settings of the table `name`, of which `file` names a file."""
        values = self._table(table, known, (), name)
        values = {key: self._expanded(value, f"{name}.{key}", self.problems) for key, value in values.items()}
        path = values.get(file)
        if self.folder is not None and isinstance(path, str) and path:
            values[file] = str(self.folder / os.path.expanduser(path))
        return values

    def _table(
        self, value: object, known: Collection[str], required: Collection[str], path: str, hint: str = ""
    ) -> dict[str, Any]:
        """The known keys of the table `value`; required ones that are missing are ""."""
        if not isinstance(value, Mapping):
            self.problems.append(f"{path or 'the configuration'}: must be a table, not {describe_type(value)}")
            return dict.fromkeys(required, "")
        dot = f"{path}." if path else ""
        for key in value:
            if key not in known:
                self.problems.append(f"{dot}{shown_name(key)}: unknown key{did_you_mean(key, [*known, *filter(None, [hint])])}")
        self.problems += [f"{dot}{key}: is missing" for key in required if key not in value]
        return dict.fromkeys(required, "") | {key: value[key] for key in known if key in value}

    def _tables(self, value: object, path: str) -> list[Any]:
        if isinstance(value, (list, tuple)):
            return list(value)
        begin = f"; in TOML each begins with [[{path}]]" if isinstance(value, Mapping) else ""
        self.problems.append(f"{path}: must be a list of tables, not {describe_type(value)}{begin}")
        return []

    def _expanded(self, value: Any, path: str, missing: list[str], depth: int = 0) -> Any:
        """`value` with variables put into its strings; keys stay as they are."""
        if depth > MAX_DEPTH:
            self.problems.append(f"{path}: is nested too deeply")
            return None
        if isinstance(value, str):
            return self._text(value, path, missing)
        if isinstance(value, Mapping):
            return {k: self._expanded(each, f"{path}.{k}", missing, depth + 1) for k, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._expanded(each, f"{path}[{i}]", missing, depth + 1) for i, each in enumerate(value)]
        return value

    def _text(self, text: str, path: str, missing: list[str], secret: bool = False) -> str:
        """`text` with its variables put in, not looking for more in what came in."""

        def value_of(match: re.Match[str]) -> str:
            name, default = match.groups()
            if match[0] == "$$":
                return "$"
            if name is None:
                self.problems.append(f"{path}: has '${{' without ${{NAME}} or ${{NAME:-default}}; write $${{ for a plain ${{")
                return ""
            value = self.env.get(name, "")
            if default is not None and not value:
                return str(default)
            if name not in self.env or (secret and not value):
                state = "is empty" if name in self.env else f"is not set{self._near(name)}"
                # What else an account may do it says itself.
                advice = f"; set it, or write ${{{name}:-default}}" if missing is self.problems else ""
                missing.append(f"{path}: the environment variable {name} {state}{advice}")
            trimmed = value.rstrip("\r\n") if secret else value
            if trimmed != value:
                self.warnings.append(f"{path}: the line break at the end of {name} was left out")
            return trimmed

        return _VARIABLE.sub(value_of, text)

    def _near(self, name: str) -> str:
        """ " (did you mean X?)" for the variable that is set and most like `name`, or nothing."""
        usable = [each for each, value in self.env.items() if value]
        own = _first_of(name)
        if own in self.key_variables:
            # Whoever follows would send one provider's key to another.
            usable = [each for each in usable if _first_of(each) == own or _first_of(each) not in self.key_variables]
        close = misspelt(name, usable)
        return f" (did you mean {close[0]}?)" if close else ""


def _first_of(variable: str) -> str:
    """The variable of a provider's first key, where `variable` is that of a further one or is written in small letters."""
    return _NUMBER.sub("", variable).upper()


def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _places(problem: str) -> list[str]:
    """The path of `problem` and those above it: a.b[0].c, a.b[0], a.b, a."""
    path = problem.partition(": ")[0]
    return [path, *(path[: mark.start()] for mark in re.finditer(r"[.\[]", path))]


def _renumbered(problem: str, numbers: list[int]) -> str:
    """`problem` with each account's place in the file instead of its place among the accounts that were kept."""
    return _ACCOUNT_INDEX.sub(lambda match: f"accounts[{numbers[int(match[1])]}]", problem)
