"""Are the tests worth anything? Breaks the library in the ways that matter, and sees a test fail each time.

`python3 -m tests.mutants [word ...]`: all of them, or those whose name holds a word. Two at a time; the package is copied for
each, so the working tree is left alone. Takes about two minutes. Fails too if the tests fail without any mutant, or if a
mutant's text is no longer in the code.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests import ir

PACKAGE = Path(str(ir.__file__)).resolve().parent
TESTS = Path(__file__).resolve().parent
TIME_LIMIT_S = 60.0
"""A mutant that takes longer is killed: it hangs."""


class Mutant(NamedTuple):
    """`old` in `module` becomes `new`; one of `tests` has to notice."""

    name: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...]


ROWS, CAPS, WAITS = ("test_limit_rows",), ("test_spend_caps",), ("test_router_waiting",)
BROWSERS = ("test_serve_guard.Browsers",)
HEADS = ("test_serve_head",)
LEAVES = ("test_serve.Waits",)
GIVEN_UP = "        if stream is not None:\n            stream.close()\n"
SIGNED = ("test_serve_dialects.GeminiBehind",)
SWEEP = "test_secrets.Sweeping.test_no_trouble_shows_a_key"
CUTS = "test_resources.Bounds.test_cut_at_every_byte"
AS_TEXT = '[line.encode("latin-1") for line in (data.decode("latin-1") + "x").splitlines()]; lines[-1] = lines[-1][:-1]'
HOLD_CR = 'if data[-1] == 13:\n                self._head, data = b"\\r", data[:-1]\n'
BOOK = ("test_quota_book",)
KEPT = ("test_kept_assessments",)
POOL = ("test_pool",)
MUTANTS = (
    Mutant("text's own line ends in a stream", "sse", 'lines = data.split(b"\\n")', f"lines = {AS_TEXT}", ("test_sse",)),
    Mutant("byte order mark kept", "sse", "return head.removeprefix(_BOM)", "return head", ("test_sse",)),
    Mutant("waits for LF after CR", "sse", "self._after_cr = data[-1] == 13\n", HOLD_CR, ("test_sse",)),
    Mutant(
        "dispatches what is not ended",
        "sse",
        "if rest:\n            self._line += rest",
        "if rest:\n            lines.append(rest)",
        ("test_sse",),
    ),
    Mutant(
        "reads by lines", "transport", "connection.read_some(min(left, _PIECE))", "connection._line()", ("test_transport_faults",)
    ),
    Mutant(
        "length not checked",
        "transport",
        "elif whole or not piece:",
        "elif False:",
        ("test_transport_faults.Truncation",),
    ),
    Mutant(
        "end without marker is success",
        "stream",
        "        elif decoder.complete and not end.taken_back:\n",
        "        elif True:\n",
        (CUTS,),
    ),
    Mutant(
        "timeout per read only",
        "connections",
        "min(self.left(), self.idle)",
        "min(1.0, self.idle)",
        ("test_transport_deadlines.Rearmed",),
    ),
    Mutant(
        "redirect handler",
        "http_opener",
        "    opener.add_handler(found)\n",
        "    opener.add_handler(found)\n    opener.add_handler(urllib.request.HTTPRedirectHandler())\n",
        ("test_transport.Opener",),
    ),
    Mutant("redirects are answers", "transport", "if 300 <= status < 400:", "if False:", ("test_transport_faults.Heads",)),
    Mutant(
        "keys in headers that travel on",
        "http_opener",
        "        self.headers: dict[str, str] = {}  # what",
        "        self.headers = {name: key.reveal() for name, key in request.headers if isinstance(key, Secret)}  # what",
        ("test_secrets.Headers",),
    ),
    Mutant(
        "only OSError is caught",
        "transport",
        "        except Exception as exc:\n            return fault_from(exc, phase",
        "        except OSError as exc:\n            return fault_from(exc, phase",
        ("test_transport_faults.Heads",),
    ),
    Mutant(
        "broken answers keep their socket",
        "transport",
        "            finally:\n                self._connection.close()",
        "            finally:\n                pass",
        ("test_resources.Resources.test_closed_though_kept",),
    ),
    Mutant(
        "reads and writes in no transaction",
        "quota_session",
        "result = work(self)",
        'cursor.execute("COMMIT"); result = work(self); cursor.execute("BEGIN")',
        ("test_quota_sqlite.KeepingTest",),
    ),
    Mutant(
        "others' writes are not read",
        "quota_session",
        "if version != self._version:",
        "if False:",
        ("test_quota_sqlite", "test_quota_processes"),
    ),
    Mutant(
        "a full bucket is not filled",
        "quota_counting",
        "counter.used + amount > state.ceiling",
        "counter.used + amount >= state.ceiling",
        ("test_quota",),
    ),
    Mutant("one full bucket is overlooked", "quota_counting", "    if refused:\n", "    if len(refused) > 1:\n", ("test_quota",)),
    Mutant(
        "a refusal is charged",
        "quota_counting",
        "            refused.append(_refusal(state, counter, amount, now))\n",
        "            refused.append(_refusal(state, counter, amount, now))\n            counter.used += amount\n",
        ("test_quota", "test_quota_sqlite"),
    ),
    Mutant(
        "what lies ahead is not counted", "quota_blocks", "        most = max(most, used)\n", "", ("test_quota", "test_limits")
    ),
    Mutant(
        "what lies far away is forgotten",
        "quota_blocks",
        "blocks = with_charge(blocks, each, each + 1, charge,",
        "blocks = with_charge(blocks, each, each + 1, 0.0,",
        ("test_quota",),
    ),
    Mutant("merging loses", "quota_blocks", "(begin, end, one + other)", "(begin, end, min(one, other))", ("test_quota",)),
    Mutant(
        "a long past is let go at once",
        "quota_windows",
        "now >= since + (SLOTS + 1) * self.width",
        "now >= since",
        ("test_quota",),
    ),
    Mutant(
        "a flap releases",
        "quota_windows",
        "        return since if same else now\n",
        "        return since or now\n",
        ("test_quota",),
    ),
    Mutant("windows never pass", "quota_counting", "if not counter.begin <= now < counter.end:", "if False:", ("test_quota",)),
    Mutant(
        "an unknown outcome is free",
        "failure_table",
        'UNKNOWN_OUTCOME = FailureRule(charge="reservation"',
        'UNKNOWN_OUTCOME = FailureRule(charge="nothing"',
        ("test_walk_table.Failures", "test_failure_table"),
    ),
    Mutant("plainly admitted beyond the limit", "quota_plain", "if used > state.ceiling or not", "if not", ("test_quota",)),
    Mutant(
        "plainly admitted by an old window",
        "quota_plain",
        "or not counter.begin <= now < counter.end or",
        "or",
        ("test_quota",),
    ),
    Mutant(
        "plainly charged, not shown",
        "quota_counting",
        "if of is not used or not since <= now < until:",
        "if not since <= now < until:",
        ("test_quota",),
    ),
    Mutant(
        "plainly settled in another window",
        "quota_plain",
        "or counter.window_id != reservation.window_ids[place]",
        "",
        ("test_quota",),
    ),
    Mutant("plainly given back too much", "quota_plain", "used < counter.older or", "", ("test_quota",)),
    Mutant("commits twice", "quota_memory", "if reservation.settled:", "if False:", ("test_quota",)),
    Mutant(
        "no pid check in the pool",
        "connections",
        "        if self._pid != PROCESS.pid:\n            self._forget_parents()\n        stack = self._idle.get(destination)",
        "        stack = self._idle.get(destination)",
        ("test_transport.Pool",),
    ),
    Mutant("a breaker stays calm", "health", "self.calm = False", "pass", ("test_health",)),
    Mutant("breakers on the wall clock", "attempt", "verdict, mono)", "verdict, wall)", ("test_walk_table.Breakers",)),
    Mutant(
        "half-open admits all",
        "health",
        "return 1.0 if probe is not None and probe._alive else 0.0",
        "return 0.0",
        ("test_health",),
    ),
    Mutant(
        "Retry-After is believed",
        "failure_table",
        "RATE_HOLD_S = (1.0, 10.0, 86_400.0)",
        "RATE_HOLD_S = (0.0, 10.0, 1e12)",
        ("test_walk_table.RateLimits", "test_failure_table"),
    ),
    Mutant(
        "who does not embed does not chat",
        "failure_table",
        "bound.embed_access if embeds and model_only else bound.access",
        "bound.access",
        ("test_access_holds",),
    ),
    Mutant(
        "a corrected key is held",
        "bound_account",
        "base, account.auth.api_key, *headers",
        "base, *headers",
        ("test_access_holds",),
    ),
    Mutant("a corrected address is held", "bound_account", "fingerprint(base, ", "fingerprint(", ("test_access_holds",)),
    Mutant("a corrected header is held", "bound_account", "api_key, *headers)", "api_key)", ("test_access_holds",)),
    Mutant(
        "waking leaves a refused key",
        "bound_account",
        "self.access, self.embed_access)))",
        "self.access)))",
        ("test_access_holds",),
    ),
    Mutant(
        "a chat model is asked for vectors",
        "calls",
        "if not _only_chats(deployment)] or able",
        "] or able",
        ("test_access_holds",),
    ),
    Mutant(
        "one reason is said of each model",
        "rejections",
        "(each.provider, each.account_id, each.reason), {})",
        "(each.provider, each.account_id, each.model), {})",
        ("test_errors",),
    ),
    Mutant("vectors count as chats", "capacity", "if not _embeds(each)]", "]", ("test_first_steps.Plan",)),
    Mutant(
        "no account is fine", "cli_check", "bool(config.accounts) and not unserved", "not unserved", ("test_first_steps.Check",)
    ),
    Mutant("repr shows the key", "secret", "{MASK!r})", "{self._value!r})", ("test_secret",)),
    Mutant(
        "error bodies are not masked",
        "redaction",
        "error.body = redact(error.body, secrets, cut=True)",
        "error.body = error.body",
        (SWEEP,),
    ),
    Mutant(
        "request ids are not masked", "redaction", "redact(error.request_id, secrets, cut=True)", "error.request_id", (SWEEP,)
    ),
    Mutant("cut keys are not masked", "secret", "SHORTEST if cut else 0", "0", (SWEEP,)),
    Mutant("escapes are not read", "escapes", "READINGS = 4", "READINGS = 1", ("test_escapes",)),
    Mutant("halves of keys are kept", "redaction", "source = ()", "pass", ("test_key_leaks.Echoes",)),
    Mutant("one pool for all keys", "http_opener", "_replace(owner=hash(keys))", "_replace(owner=0)", ("test_transport.Pool",)),
    Mutant(
        "a finish reason is believed in every chunk",
        "stream_end",
        "Stage.LIKELY: (Stage.DOUBTED, Stage.REPEATED, Stage.OVER)",
        "Stage.LIKELY: (Stage.SPEAKING, Stage.LIKELY, Stage.OVER)",
        ("test_stream_end",),
    ),
    Mutant("a failed read is forgotten", "connections", "if self.lost:", "if False:", ("test_http_answer",)),
    Mutant("what is left over is kept", "connections", "connection.at == len(connection.data) and ", "", ("test_http_answer",)),
    Mutant("a cut in a chunk is an end", "http_answer", "        if not piece:\n", "        if False:\n", ("test_http_answer",)),
    Mutant(
        "a chunk's end is not passed over", "http_answer", "len(self.read(2)) < 2", "len(self.read(1)) < 1", ("test_http_answer",)
    ),
    Mutant(
        "a buffer holds more than a line may have",
        "http_answer",
        "_BUFFER = 8 << 10",
        "_BUFFER = 128 << 10",
        ("test_http_answer",),
    ),
    Mutant(
        "only 100 is passed over", "http_answer", "if status >= 200 or status == 101:", "if status != 100:", ("test_http_answer",)
    ),
    Mutant("cut refusals say nothing", "error_body", "return load_cut_json(text)", "return {}", ("test_refusals.Refusals",)),
    Mutant(
        "coded refusals have no status",
        "transport",
        "if reply._body_fault is not None and status < 300:",
        "if reply._body_fault is not None:",
        ("test_refusals.Refusals",),
    ),
    Mutant("streams without a limit", "transport", "if self._stream_left < 0:", "if False:", ("test_transport.Pool",)),
    Mutant(
        "bad certificates are tried again",
        "wire",
        "lasting = _CERTIFICATE_ADVICE in message",
        "lasting = False",
        ("test_transport_config",),
    ),
    Mutant("estimates are not marked", "calls", "estimated=True", "estimated=False", ("test_estimated_usage",)),
    Mutant(
        "causes that quote are kept",
        "secret",
        "return len(self._value) >= SHORTEST and shows_any(",
        "return False and (",
        (SWEEP,),
    ),
    Mutant("a broken stream ends quietly", "stream", "raise interrupted from error", "return", (CUTS,)),
    Mutant(
        "a failing store admits",
        "guarded_store",
        "            answer = store.reserve(wants, now)\n        return",
        "            return store, Reservation(0, (), ())\n        return",
        ("test_guarded_store",),
    ),
    Mutant(
        "a refused reservation is a call",
        "walk",
        "if isinstance(refused, Refusal):",
        "if False:",
        ("test_concurrency", "test_walk_table.RateLimits"),
    ),
    Mutant(
        "one connection, no turns",
        "quota_sqlite",
        "        if not turn.take(holder, patience.left):\n            raise self._file.locked()\n",
        "        turn.take(holder)\n",
        ("test_quota_sqlite", "test_quota_processes"),
    ),
    Mutant(
        "settled before it is done",
        "attempt",
        "        runtime, trace, clock = self.runtime, self.operation.trace, self.runtime.clock\n",
        "        runtime, trace, clock = self.runtime, self.operation.trace, self.runtime.clock\n        self._ended = True\n",
        ("test_interrupts",),
    ),
    Mutant(
        "what a cut use failed in stays",
        "quota_sqlite",
        "            if holder.cut:\n                self._end_what_is_left()\n",
        "",
        ("test_interrupts.InTheMidst",),
    ),
    Mutant("a cut transaction stays", "quota_session", 'self.cursor.execute("ROLLBACK")', "pass", ("test_interrupts",)),
    Mutant(
        "a step between look and change",
        "quota_book",
        "if not self.replace(seen, entry):",
        "if not self.replace(self.look()[1], entry):",
        ("test_interrupts", "test_quota"),
    ),
    Mutant("a look outlasts what lies ahead", "quota_windows", "self.blocks or not self.plain:", "False:", ("test_quota_book",)),
    Mutant(
        "what is given back still resets",
        "quota_windows",
        "self.first = self.steady = None",
        "self.first = None",
        ("test_limits",),
    ),
    Mutant("a look outlasts what passes", "quota_windows", "max(resets_at, self.end)", "resets_at + 1", ("test_quota_book",)),
    Mutant(
        "a file's charges are not passed on", "quota_session", "self.note_changed([state.key for state in changed])", "pass", BOOK
    ),
    Mutant("a file's holds stay as they were", "quota_sqlite", "session.holds.clear()\n            old", "old", BOOK),
    Mutant("what others wrote is not read", "quota_session", "        self.number += 1  # a", "        # a", BOOK),
    Mutant("changes are not passed on", "quota_seen", "range(last + 1, number + 1)", "range(last + 1, number)", BOOK),
    Mutant("looks at other stores", "quota_seen", "source is not changes or not", "not", BOOK),
    Mutant("looks of other times", "quota_seen", " or not since <= now < until:", ":", BOOK),
    Mutant("a look's end does not come nearer", "quota_seen", "min(until, *ends)", "until", BOOK),
    Mutant("groups that share a bucket", "quota_seen", "places.setdefault(key, []).append(place)", "places[key] = [place]", BOOK),
    Mutant("a list that its store changes", "quota_seen", "seen = tuple(seen)", "seen = seen", BOOK),
    Mutant("what is due is not noted", "quota_seen", "        if to_note:\n            return None\n", "", BOOK),
    Mutant(
        "what was due is seen for good", "quota_counting", "if not to_note or to_note[-1] is not state.key:", "if True:", BOOK
    ),
    Mutant(
        "a limit that reading changed", "quota_counting", "and state.limit_at(now) and", "and state.limit_at(now) and 0 and", BOOK
    ),
    Mutant(
        "a limit that reading a file changed", "quota_sqlite", "            session.note_changed(keys)", "            #", BOOK
    ),
    Mutant("changes for ever", "quota_seen", "if len(changes) > 2 * KNOWN:", "if False:", BOOK),
    Mutant("a look waits for ever", "guarded_store", '**self._options("look_at_groups", max_wait)', "", BOOK),
    Mutant("kinds without end", "kept_assessments", "            route.memo.clear()", "            pass", KEPT),
    Mutant(
        "a wrong name is a matter of time", "rejections", "first.reason.startswith(NOT_BY_TIME)", "False", ("test_access_holds",)
    ),
    Mutant("an inherited look", "guarded_store", "in kinds[0] else _NOBODYS", "in dir(type(store)) else _NOBODYS", BOOK),
    Mutant("too few headrooms", "guarded_store", "if len(found) == len(keys):", "if True:", BOOK),
    Mutant("who needs more finds what holds for less", "kept_assessments", " and common[0] <= total <= common[1]:", ":", KEPT),
    Mutant("the rest of what is new", "kept_assessments", "if calm and len(news) == 1 and", "if calm and", KEPT),
    Mutant("a child settles", "attempt", "if self._ended or self._pid != PROCESS.pid:", "if self._ended:", ("test_forks",)),
    Mutant(
        "a child reads",
        "transport",
        "if self._connection.pid != PROCESS.pid:  # whoever",
        "if False:  # whoever",
        ("test_forks",),
    ),
    Mutant(
        "deleted logs are not missed",
        "quota_session",
        "self._file.check_companions(self._companions)",
        "pass",
        ("test_quota_locked.Beside",),
    ),
    Mutant(
        "sleepers sleep on",
        "waiting",
        "        self.closed = True\n        for bell",
        "        self.closed = True\n        for bell in ():\n            _ring(bell)\n        for _",
        ("test_waiting",),
    ),
    Mutant("names are lost", "openai_request", "is message.name is None", "is None", ("test_provider_openai",)),
    Mutant("negative counts", "wire_json", "if value > 0 else 0", "", ("test_hostile_bodies",)),
    Mutant(
        "keys through plain proxies",
        "http_opener",
        "and prepared.carries_key:",
        "and False:",
        ("test_secrets.NoAnswer.test_plain_proxies",),
    ),
    Mutant("busy accounts are kept", "kept_assessments", "in busy | were_busy:", "in busy:", ("test_kept_assessments",)),
    Mutant("holds that end are kept", "kept_assessments", "{*holds, *held}", "{*holds}", ("test_kept_assessments",)),
    Mutant(
        "assessments never age",
        "walk",
        "self._in_turn(first) if old else first",
        "first",
        ("test_walk_assessment",),
    ),
    Mutant(
        "nobody looks again",
        "walk",
        "        self._put_back(*self._found_besides(tried))\n",
        "        return False\n",
        ("test_walk_assessment",),
    ),
    Mutant("what remains raises headroom", "quota_counting", "    if missing <= 0:\n", "    if missing == 0:\n", ("test_quota",)),
    Mutant(
        "a higher statement counts at once", "quota_learned", "return now >= known.at + FIRM_S", "return True", ("test_quota",)
    ),
    Mutant("a ceiling stays", "quota_learned", "ceiling.amount + steps * ceiling.step", "ceiling.amount", ("test_quota",)),
    Mutant("refused calls have passed", "learning", "passed -= self", "passed -= 0 * self", ("test_learning",)),
    Mutant("one account is an outage", "outage", "if len(recent) < ACCOUNTS and", "if False and", ("test_outage",)),
    Mutant(
        "every call is the probe",
        "outage",
        ") is not probe:\n            return False",
        ") is None:\n            return False",
        ("test_outage",),
    ),
    Mutant(
        "a job's torn record is kept",
        "batch_output",
        "            if self._end < size:\n                os.ftruncate(self._fd, self._end)",
        "            self._end = size",
        ("test_batch.Resuming",),
    ),
    Mutant(
        "a job's half write stays",
        "batch_output",
        "os.ftruncate(self._fd, self._end)\n                os.lseek",
        "os.lseek",
        ("test_batch",),
    ),
    Mutant(
        "two jobs on one output",
        "batch_state",
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        ("test_batch.Resuming",),
    ),
    Mutant("equal rows are each asked", "batch_index", "if times > 1 and dedupe:", "if False:", ("test_batch.Resuming",)),
    Mutant("a job's line is no line", "map_pacing", "turns.sort(key=_number)", "pass", ("test_mapping.Pacing",)),
    Mutant(
        "what a call left over waits",
        "map_pacing",
        "first.at = min(first.at, self._clock.time())",
        "pass",
        ("test_mapping.Pacing",),
    ),
    Mutant("waiting is a try", "map_serving", "failures += meaning is Meaning.TRY", "failures += True", ("test_mapping",)),
    Mutant("an overload is a try", "map_errors", "or is_busy(each) for each in faults", "for each in faults", ("test_mapping",)),
    Mutant("lines are put off too long", "map_workers", "half if len(off) >= half else 0", "half", ("test_batch.Resuming",)),
    Mutant("a few workers for good", "map_crew", "min(2 * self.at_work, self.size)", "self.at_work", ("test_mapping.Crew",)),
    Mutant("more workers for nothing", "map_crew", "elif share < GAIN * before:", "elif False:", ("test_mapping.Crew",)),
    Mutant("results wait for more", "map_workers", "elif took >= LATE_S:", "elif False:", ("test_mapping.Crew",)),
    Mutant("a line is kept when written", "batch_keep", "del self._lines[: len(ready)]", "pass", ("test_batch.Formats",)),
    Mutant("any answer fits the schema", "batch", "check=check, keeper=", "check=None, keeper=", ("test_batch.Formats",)),
    Mutant("a rolling day is a day", "capacity_serving", "DAY * _CYCLE if rolling_day", "DAY if rolling_day", ("test_capacity",)),
    Mutant("the first day is every day", "capacity_serving", "if passed > 1 and", "if passed > 0 and", ("test_capacity",)),
    Mutant(
        "a capacity off by some slots", "capacity_serving", "(SLOTS + 0.5) / SLOTS", "(SLOTS + 4) / SLOTS", ("test_capacity",)
    ),
    Mutant("newcomers jump the line", "waiting_line", "each.number < place.number and", "False and", ("test_waiting_line",)),
    Mutant("sessions wander", "policy", "sorted(alike, key=_first, reverse=True)", "alike", ("test_sessions",)),
    Mutant(
        "a key in an event",
        "redaction",
        "return redact(text[:200], _secrets(candidate), cut=True)",
        "return text[:200]",
        ("test_call_events",),
    ),
    Mutant(
        "a full model blocks its alias",
        "policy",
        "return False, candidate.share <= 0, place",
        "return False, False, place",
        ("test_policy",),
    ),
    Mutant("one key twice counts twice", "environment", "if same is not None:", "if False:", POOL),
    Mutant("the last refused key is passed over", "walk", "return self.runtime.auth_next and bool(others)", "return True", POOL),
    Mutant("what costs is free beside free models", "environment", "and _is_free(each)", "", POOL),
    Mutant("another number is a typo", "spelling", "if _digits(one) != _digits(other):", "if False:", ("test_spelling",)),
    Mutant("limits are assumed over stated ones", "assumptions", "account.limits is UNSTATED and", "", ("test_assumptions",)),
    Mutant(
        "an unpriced model under a cap",
        "assessment",
        "account.prices == CATALOG and DOLLARS in",
        "DOLLARS in ()",
        ("test_assumptions",),
    ),
    Mutant("nothing is learned of answers", "attempt", "if self._expected.open_answers:", "if False:", ("test_estimates",)),
    Mutant("true is one", "shapes", "type(value) is type(data) or", "True or", ("test_shapes",)),
    Mutant(
        "an overload is the account's", "failure_table", "if is_overload(error):\n        return _OVERLOAD", "", ("test_outage",)
    ),
    Mutant("an overload never rests longer", "outage", "least * 2.0 ** min(times, 20)", "least", ("test_outage",)),
    Mutant(
        "an overload takes the provider down",
        "walk",
        "if is_overload(error):\n            return outages",
        "if False:\n            return outages",
        ("test_outage",),
    ),
    Mutant("a taken place is waited for as a lease", "quota_counting", "min(retry_at, now + PLACE_WAIT_S)", "retry_at", ROWS),
    Mutant("a wish that failed is kept quiet", "resting", "raise QuotaStoreError(f", "return str(f", ("test_resting",)),
    Mutant(
        "a void cap is kept quiet",
        "walk",
        'if text:\n            self.runtime.say(f"cap',
        'if False:\n            self.runtime.say(f"cap',
        CAPS,
    ),
    Mutant("a limit that is spent too is forgotten", "assessment", "return last.resets_at, f", "return back, f", WAITS),
    Mutant("a hold hides a full limit", "soonest", "first.code not in RESTS or", "True or", WAITS),
    Mutant("a probe that was not made counts", "walk", "if refused is not None and outages.out:", "if False:", ("test_outage",)),
    Mutant("every batch waits anew", "calls", "max(max_wait - sum(waits), 0.0)", "max_wait", WAITS),
    Mutant("a key in the place of a name", "validation", "return MASK if", "return text if", ("test_secrets.Configurations",)),
    Mutant("true is a number", "shapes", "and not isinstance(data, bool)", "", ("test_chat",)),
    Mutant("missing fields are filled", "shapes", "    if missing:\n", "    if False:\n", ("test_chat",)),
    Mutant(
        "serve: a cut stream ends cleanly", "serve_chat", "self.connection.cut(", "self.connection.end(", ("test_serve.Streams",)
    ),
    Mutant("serve: any name is its own", "serve_guard", "if not self._own_host(head.host):", "if False:", BROWSERS),
    Mutant("serve: any site may ask", "serve_guard", "self._check_origin(head)\n", "\n", BROWSERS),
    Mutant("serve: a form may ask", "serve_guard", 'if head.method == "POST" and', "if False and", BROWSERS),
    Mutant("serve: any head is the last one again", "serve_head", "self._around != around", "False", ("test_serve_head.Again",)),
    Mutant("serve: a body is as long as the last", "serve_head", "int(length), last.keeps", "last.length, last.keeps", HEADS),
    Mutant("serve: blanks are read over and over", "serve_head", ":[ \\t]*+(", ":[ \\t]*(", ("test_serve_head.Refused",)),
    Mutant("serve: no token is asked for", "serve_guard", "if not self._rules.token:", "if True:", ("test_serve_guard.Tokens",)),
    Mutant(
        "serve: two lengths are one",
        "serve_head",
        "if length is not None:\n            raise",
        "if False:\n            raise",
        HEADS,
    ),
    Mutant(
        "serve: whoever hangs up waits on",
        "serve_chat",
        "self.gone = True\n        self.cancel.hang_up()",
        "self.gone = True",
        LEAVES,
    ),
    Mutant(
        "serve: whoever hangs up on a whole answer occupies its provider",
        "waiting",
        "if shut is not None:\n            shut()",
        "if False:\n            shut()",
        ("test_serve_hangups.Amid",),
    ),
    Mutant(
        "wire: a connection that was given up goes to another call",
        "transport",
        "(self._stop is not None and self._was_cut()) or self._shut",
        "self._shut",
        ("test_serve_hangups.Cancels",),
    ),
    Mutant(
        "serve: a body's room is never given back",
        "serve_http",
        "self._bodies.give(self._room)",
        "pass",
        ("test_serve_bodies.Full",),
    ),
    Mutant(
        "serve: bodies in chunks take no room",
        "serve_http",
        "self._make_room(min(2 * total, self._max_body))",
        "pass",
        ("test_serve_bodies.Full",),
    ),
    Mutant("serve: whoever leaves a stream pays on", "serve_chat", GIVEN_UP, "", ("test_serve.HangUps",)),
    Mutant("serve: signatures are forgotten", "serve_turns", "return known if known", "return message if known", SIGNED),
)


def main(words: Sequence[str]) -> int:
    """Prints each mutant that lives, then how many were killed; 1 if any lives or nothing can be said."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    needed = sorted({test for mutant in chosen for test in mutant.tests})
    lost = [mutant for mutant in chosen if mutant.old not in (PACKAGE / f"{mutant.module}.py").read_text(encoding="utf-8")]
    for mutant in lost:
        print(f"{mutant.name}: its text is not in {mutant.module}.py any more")
    if lost or not (passes(None, needed) or passes(None, needed)):  # a busy machine may miss a moment
        print("mutants: nothing can be said; mend the list, or the tests")
        return 1
    with ThreadPoolExecutor(2) as pool:
        alive = [
            mutant
            for mutant, lives in zip(chosen, pool.map(lambda mutant: passes(mutant, mutant.tests), chosen), strict=True)
            if lives
        ]
    for mutant in alive:
        print(f"{mutant.name} ({mutant.module}.py): nothing in {', '.join(mutant.tests)} notices")
    print(f"mutants: {len(chosen) - len(alive)} of {len(chosen)} killed")
    return 1 if alive else 0


def passes(mutant: Mutant | None, tests: Sequence[str]) -> bool:
    """Whether `tests` pass over a copy of the package with `mutant` in it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, copy)  # with what is compiled
        (Path(folder) / "tests").symlink_to(TESTS)
        if mutant is not None:
            for compiled in (copy / "__pycache__").glob(f"{mutant.module}.*"):
                compiled.unlink()
            module = copy / f"{mutant.module}.py"
            module.write_text(module.read_text(encoding="utf-8").replace(mutant.old, mutant.new, 1), encoding="utf-8")
        command = [sys.executable, "-B", "-W", "error", "-m", "unittest", "-f", *(f"tests.{test}" for test in tests)]
        limit_s = TIME_LIMIT_S * (1 if mutant else 10)
        try:
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return False
    if mutant is None and run.returncode:
        print(run.stderr[-3000:])
    return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
