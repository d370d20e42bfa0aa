"""Runs a long job from a file into a file: paced by the limits, resumed by running it again.

Strategy: the output says what is finished, the rest is asked through `map_workers`, and each answer is appended by the thread
that got it, before it takes another row, so that a crash has at most as many asked twice as there are workers. Rows that say the
same are asked once and copied at the end. Must never know how a provider is called or how anything is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .batch_answer import answer_columns, check_answer
from .batch_checks import check_kinds, check_numbers
from .batch_index import COPY, FAILED, FINISHED, TO_DO, Index
from .batch_input import Folder, RawRow, Source, source
from .batch_keep import Keeper
from .batch_output import FORMATS, Output, keys_of, records_of, without_failed
from .batch_progress import BatchSummary, Progress, Tracker
from .batch_prompt import Asking, template
from .batch_schema import schema_from_file
from .batch_state import JobState
from .capacity import FinishTime
from .costs import estimate_chat
from .errors import BatchError, ConfigError, InvalidRequestError
from .frozen import freeze, replace
from .map_serving import JobSettings, Row, Served, new_row
from .map_workers import Workers
from .mapping import job_settings
from .records import ChatRequest, Usage
from .router import Router

ON_CHANGE = ("refuse", "keep", "restart")
REPORT_S = 0.1
"""Seconds between two reports of progress at least."""

Reporter = Callable[[Progress], object]


class Batch:
    """A job: every row of `input` asked, every answer in `output`. `run` does it, as often as it takes.

    `input`: a .jsonl, .csv, .tsv or text file (a line a row), or a folder (a file a row). `output`: .csv for a table, else JSONL.
    `prompt`, `system`: templates with `{column}`; without a prompt a row holds its request (OpenAI's batch lines, a body with
    `messages`, a column `prompt` or `text`, or one column alone). `schema`: a JSON schema, or its file; answers that break it are
    asked again. `media`: columns that hold a path or a URL. `shape`: openai, flat or csv; "": by the output's name. `settings`:
    further fields of `ChatRequest`, such as `max_tokens`.

    `workers`, `tries`, `timeout`, `until`, `stop_when_spent`: as in `Router.map`. `max_spend`: dollars of a run, after which no
    row begins. `dedupe`: rows that say the same are asked once. `retry_failed`: rows whose record is an error are asked again.
    `shard`: (i, n), this run takes the i-th part of n. `fsync`: each record is on the disk before the next, against power cuts.
    `on_change`: what happens if the output was begun with other settings: refuse, keep (the rest the new way) or restart.
    Raises `ConfigError` for what is wrong in itself.
    """

    def __init__(
        self,
        input: str | os.PathLike[str],  # noqa: A002  what it is called everywhere
        output: str | os.PathLike[str],
        *,
        prompt: str | None = None,
        system: str | None = None,
        model: str = "",
        schema: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        media: Sequence[str] = (),
        kind: str = "",
        shape: str = "",
        settings: Mapping[str, Any] | None = None,
        workers: int = 8,
        tries: int = 3,
        timeout: float | None = None,
        until: float | datetime | None = None,
        stop_when_spent: bool | float = False,
        max_spend: float | None = None,
        dedupe: bool = True,
        retry_failed: bool = False,
        shard: tuple[int, int] | None = None,
        fsync: bool = False,
        on_change: str = "refuse",
    ) -> None:
        check_kinds(
            *(("input", input), ("output", output), ("prompt", prompt), ("system", system), ("model", model), ("schema", schema)),
            *(("media", media), ("kind", kind), ("shape", shape), ("settings", settings), ("max_spend", max_spend)),
            *(("dedupe", dedupe), ("retry_failed", retry_failed), ("fsync", fsync)),
        )
        check_numbers(shard, max_spend)
        self._source: Source = source(os.fspath(input), kind)
        self.output = Path(os.fspath(output))
        self._shape = shape or ("csv" if self.output.suffix.lower() == ".csv" else "openai")
        if self._shape not in FORMATS:
            raise ConfigError(f"shape: {shape!r} is not one of {', '.join(FORMATS)}")
        if on_change not in ON_CHANGE:
            raise ConfigError(f"on_change: {on_change!r} is not one of {', '.join(ON_CHANGE)}")
        folder = self._source.path if isinstance(self._source, Folder) else self._source.path.parent
        if isinstance(self._source, Folder):
            self._source.output = self.output
        if isinstance(self._source, Folder) and not media:
            media = ("file",)
        loaded = schema if schema is None or isinstance(schema, Mapping) else schema_from_file(os.fspath(schema))
        cut = [None if text is None else template(text) for text in (prompt, system)]
        fields = dict(settings or {})
        if loaded is not None:
            fields["response_format"] = freeze({"type": "json_schema", "json_schema": {"name": "row", "schema": loaded}})
        self._schema = loaded
        self._asking = Asking(cut[0], cut[1], model, tuple(media), str(folder), fields)
        self._jobs: JobSettings = job_settings(workers, timeout, tries, until, stop_when_spent)
        self._max_spend, self._dedupe, self._retry_failed = max_spend, dedupe, retry_failed
        self._shard, self._fsync, self._on_change = shard, fsync, on_change
        self._made_with = {
            "prompt": prompt,
            "system": system,
            "model": model,
            "schema": None if loaded is None else dict(loaded),
            "media": list(media),
            "settings": dict(settings or {}),
            "shape": self._shape,
            "shard": None if shard is None else f"{shard[0]}/{shard[1]}",
        }
        self._workers: Workers | None = None
        self._stopping = ""
        self._interrupt: KeyboardInterrupt | None = None

    def run(self, router: Router, progress: Any = None) -> BatchSummary:
        """Ask what is not in the output yet. `progress`: a function that gets `Progress` at most ten times a second, or tqdm.

        Returns when every row is in the output, or it had to stop; `BatchSummary.stopped` says. Raises `BatchError`,
        `ConfigError`, or what no row could be served with; what is in the output then is whole, and the same call goes on.
        Ctrl-C once lets what is in flight finish and be written before it is raised, twice does not wait for it.
        """
        if not isinstance(router, Router):
            raise ConfigError(f"router: run takes an ir.Router, not {type(router).__name__}")
        if progress is not None and not callable(progress):
            raise ConfigError("progress: must be a function that takes a Progress, or tqdm")
        self._stopping, self._interrupt = "", None
        self._check_output()
        state = JobState(self.output)
        state.take()
        output: Output | None = None
        try:
            index = Index(self._source, self._shard, self._dedupe)
            self._check_columns()
            output = self._opened(state)
            mended = output.open()
            if self._retry_failed:
                output.close()
                without_failed(self.output, self._shape)
                output.open()
            index.mark(*keys_of(self.output, self._shape))
            tracker = Tracker(
                router.clock, index.total, index.count(FINISHED), index.count(FAILED), self._forecast(router, index)
            )
            self._ask(router, index, output, tracker, _reporter(progress, index.total, tracker.before))
            stopped, retry_at = (self._workers.stopped, self._workers.retry_at) if self._workers else ("", None)
            return tracker.summary(stopped if tracker.left else "", retry_at if tracker.left else None, mended)
        finally:
            if output is not None:
                output.close()
            state.release()

    def stop(self) -> None:
        """Finish what is in flight and return from `run`; may be called from a signal handler or another thread."""
        self._stopping = "stopped"

    def rows(self) -> tuple[int, int]:
        """How many rows the input has for this shard, and how many are left. Raises as `run` does; nothing is changed."""
        self._check_output()
        index = Index(self._source, self._shard, self._dedupe)
        self._check_columns()
        if self.output.exists():
            index.mark(*keys_of(self.output, self._shape))
        return index.total, index.count(TO_DO, COPY)

    def sample(self, count: int = 20) -> list[ChatRequest]:
        """The first requests, to see what will be asked. Raises as `run` does; rows that cannot be read are left out."""
        found: list[ChatRequest] = []
        for row in self._source.raw():
            try:
                request = self._asking.request(self._source.values(row))
            except InvalidRequestError:
                continue
            if isinstance(request, ChatRequest):
                found.append(request)
            if len(found) >= count:
                break
        return found

    def _opened(self, state: JobState) -> Output:
        begun = self.output.exists() and self.output.stat().st_size > 0
        if self._on_change == "refuse":
            state.check(self._made_with, begun)
        else:
            if self._on_change == "restart" and begun and state.differs(self._made_with):
                aside = self.output.with_name(f"{self.output.name}.before")
                os.replace(self.output, aside)
            state.note(self._made_with)
        columns = self._source.columns or self._asking.columns
        return Output(self.output, self._shape, columns, answer_columns(self._schema), self._fsync)

    def _check_output(self) -> None:
        if self.output.exists() and not self.output.is_file():
            raise BatchError(
                f"output {str(self.output)!r} is not a regular file, and a job reads its output back "
                "to resume; name another with --out"
            )

    def _check_columns(self) -> None:
        known = self._source.columns
        missing = [name for name in self._asking.columns if known is not None and name not in known]
        if missing:
            raise BatchError(f"input {str(self._source.path)!r} has no column {missing[0]!r}; it has {', '.join(known or ())}")

    def _ask(self, router: Router, index: Index, output: Output, tracker: Tracker, report: Reporter) -> None:
        """Ask every row that is to do, write each as it comes, then make the copies."""
        schema = self._schema
        check = None if schema is None else (lambda _, answer: check_answer(answer, schema))
        keeper = Keeper(output, schema, router.clock, self._fsync, self._max_spend)
        settings = replace(self._jobs, check=check, keeper=keeper)
        workers = self._workers = Workers(router, index.rows(TO_DO), self._row, settings)
        keeper.in_flight, keeper.spent = lambda: workers.in_flight, lambda: workers.stop("max_spend")
        last, at_once = -1e18, False

        def look(ended: bool = False) -> None:
            nonlocal last
            if self._stopping and not workers.stopped:
                workers.stop(self._stopping)
            now = router.clock.monotonic()
            if ended or now - last >= REPORT_S:
                last = now
                stopped = workers.stopped if ended and tracker.left else ""
                report(tracker.progress(workers.in_flight, workers.next_look(), stopped, ended))

        try:
            workers.begin()
            look()
            while (served := self._next(workers, look)) is not None:
                while served is not None:
                    workers.taken()
                    tracker.served(served, served.row.item[0])
                    served = workers.ready()
                look()
            self._copy(index, output, tracker)
            output.check()
            if self._interrupt is not None:
                raise self._interrupt
        except KeyboardInterrupt as exc:
            at_once = bool(self._stopping) and exc is not self._interrupt
            raise
        finally:
            workers.stop()
            try:
                if not at_once:
                    workers.join()
            finally:
                keeper.end()
            look(ended=True)

    def _next(self, workers: Workers, look: Callable[[], None]) -> Served | None:
        """The next result. The first Ctrl-C stops the job and is raised after its last result; a second one at once."""
        while True:
            try:
                return workers.next(look)
            except KeyboardInterrupt as exc:
                if self._stopping:
                    raise
                self._interrupt = exc
                self.stop()

    def _row(self, found: tuple[int, str, RawRow]) -> Row:
        """What is to be asked, made when a worker is free for it."""
        at, custom_id, raw = found
        columns: Mapping[str, Any] = {}
        try:
            columns, asking = self._source.values(raw), self._asking
            request = asking.request(columns)
            whole = asking.prompt is not None or self._shape != "openai" or _OF_REQUESTS.isdisjoint(columns)
            own = request.model != asking.model and request.model != ""
            return new_row(at, (custom_id, columns if whole else _without_request(columns)), request, None, own)
        except InvalidRequestError as exc:
            place = self._source.place(raw)
            told = exc if place in exc.message else InvalidRequestError(message=f"{place}: {exc.message}")
            return Row(at, (custom_id, columns), None, told)

    def _copy(self, index: Index, output: Output, tracker: Tracker) -> None:
        """Give every row that says the same as an earlier one that one's record."""
        if not index.count(COPY):
            return
        copies = dict(index.originals())
        found = [record for record in records_of(self.output, self._shape) if record.custom_id in copies]
        for record in found:
            for custom_id in copies[record.custom_id]:
                output.copy(record, custom_id)
                tracker.copy(record.failed)

    def _forecast(self, router: Router, index: Index) -> Callable[[int, Usage, float], FinishTime]:
        sizes = [estimate_chat(request).total for request in self.sample(5)]
        reserved = sum(sizes) // len(sizes) if sizes else None

        def foretell(rows: int, usage: Usage, per_second: float) -> FinishTime:
            return router.finish_time(
                rows,
                model=self._asking.model,
                tokens=usage.total_tokens,
                output_tokens=usage.completion_tokens,
                reserved=reserved,
                per_second=per_second,
            )

        return foretell


_OF_REQUESTS = frozenset(("body", "method", "url", "messages", "custom_id", "model"))


def _without_request(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row's columns without the request it holds, which the answer need not repeat."""
    return {name: value for name, value in columns.items() if name not in _OF_REQUESTS}


def _reporter(progress: Any, total: int, before: int) -> Reporter:
    """What is called with each `Progress`: the caller's function, a bar of tqdm's, or nothing."""
    if progress is None:
        return lambda _: None
    if not hasattr(progress, "update"):
        report: Reporter = progress
        return report
    bar = progress(total=total, initial=before, unit="row")

    def update(state: Progress) -> None:
        bar.update(state.done + state.failed - bar.n)
        bar.set_postfix_str(f"{state.failed} failed, {state.tokens:,} tokens, ${state.cost:.2f}")
        if state.ended:
            bar.close()

    return update
