"""Hands out an open stream chunk by chunk; it is closed once and settled once, whichever way it ends.

Strategy: the walk reads until the first content, so that everything before it can still fail over; from there on the chunks go
straight to the caller. Only a terminal marker makes a stream complete; an end before it is an interruption and carries what
came. A stream that is dropped frees its socket and is settled by the next call. It has ended once it is settled, not before, so
that `close` carries out what an interrupt cut off; and it is its own process's alone. Must never know a wire format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from math import inf
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .assessment import CallNeeds
from .attempt import LiveAttempt, Operation
from .calls import estimated, usage_of
from .costs import Estimate, answers_wanted, estimate_text
from .errors import InferRouterError, MalformedResponseError, ProviderError, StreamInterruptedError
from .failure_table import UNKNOWN_OUTCOME, error_from_fault, failure_of
from .frozen import shown_once_made
from .own_process import PROCESS
from .provider import StreamDecoder
from .records import ChatRequest, Routing, Usage
from .redaction import provider_bug, redacted_partial
from .responses import Assembler, ChatChunk, ChatResponse
from .stream_end import StreamEnd
from .transport import WireReply
from .waiting import CallCancelledError, Cancel
from .wire import WireFault

if TYPE_CHECKING:
    from .call_events import CallTrace

LAST_PIECE_WAIT_S = 0.02
"""How long the end of the body is waited for after the last event, so that the connection can be used again."""

STALL_S = 600.0
"""How long a stream may send nothing but comments, where no timeout bounds it."""


def stream_operation(
    request: ChatRequest,
    needs: CallNeeds,
    deadline: float | None,
    max_wait: float,
    idle_s: float,
    trace: CallTrace | None = None,
    cancel: Cancel | None = None,
) -> Operation[ChatStream]:
    """The operation of `Router.stream`. `deadline`: monotonic seconds or None; `idle_s`: longest silence in seconds."""

    def read(attempt: LiveAttempt, reply: WireReply) -> ChatStream:
        found = attempt.candidate
        decoder = found.deployment.bound.provider.decoder(found.model)
        stream = ChatStream(attempt, reply, decoder, needs.estimate, idle_s, StreamEnd(answers_wanted(request)))
        try:
            stream._open()
        except BaseException:
            stream._ended = True
            reply.close()
            raise
        if cancel is not None:
            cancel.cuts(None)  # from here on the stream is closed, not its connection
            if cancel.cut:
                stream.close()
                raise CallCancelledError
        return stream

    return Operation(request, needs, read, deadline, max_wait, True, trace, cancel)


class ChatStream:
    """Iterate it for `ChatChunk`s in one thread; `with` or `close()` ends it early, `close()` from any thread.

    `routing` is known at once; `response` is the whole `ChatResponse` after the end. Iterating raises `StreamInterruptedError`
    (with `.partial`) if the answer breaks off, and nothing else; in a forked child `InferRouterError`: a stream is its parent's.
    """

    _ended = True  # until it is whole

    def __init__(
        self,
        attempt: LiveAttempt,
        reply: WireReply,
        decoder: StreamDecoder,
        estimate: Estimate,
        idle_s: float,
        end: StreamEnd,
    ) -> None:
        self._stopped = False
        self._reader = 0  # the thread that waits for the next chunk
        self._closer: dict[None, int] = {}  # the thread that closes the reply
        self._pid = PROCESS.pid
        self._attempt = attempt
        self._reply = reply
        self._decoder = decoder
        self._estimate = estimate
        self._idle_s = idle_s
        self._end = end
        self._assembler = Assembler()
        self._ready: list[ChatChunk] = []
        self._said = False
        self._exhausted = False
        self._tail = inf
        self._quiet_since: float | None = None
        self._response: ChatResponse | None = None
        self.routing: Routing = attempt.routing
        self._ended = False

    @property
    def response(self) -> ChatResponse:
        """The whole answer once the stream has ended; after an early close, what came. Raises `InferRouterError` before."""
        if self._response is None:
            if self._ended:
                raise InferRouterError("the stream broke off: what came is in the StreamInterruptedError's .partial")
            raise InferRouterError("the stream has not come to its end: iterate it before reading .response")
        return self._response

    def __iter__(self) -> Iterator[ChatChunk]:
        return self

    def __next__(self) -> ChatChunk:
        while not self._ready:
            if self._ended:
                raise StopIteration
            self._more()
        try:
            return self._ready.pop()
        except IndexError:  # closed by another thread a moment ago
            raise StopIteration from None

    def close(self) -> None:
        """End early: the socket is closed and what was seen is charged. Does nothing once the stream has ended.

        While another thread waits for the next chunk, that thread stops waiting and ends the stream, without an error. In a
        forked child it does nothing at all.
        """
        if self._ended or self._pid != PROCESS.pid:
            return
        self._stopped = True  # before the look at who reads, see `_more`
        if self._reader not in (0, get_ident()):
            self._reply.shutdown()
        else:
            self._stop()

    def _stop(self) -> None:
        if self._ended or self._pid != PROCESS.pid:
            return
        if self._reader == get_ident():  # cut off in the middle of reading, or called by a signal handler in the midst of it
            self._reply.abort()
        self._hang_up()
        usage, response = self._came()
        if self._response is None:  # else it was whole when an interrupt came
            self._response = response
        self._attempt.succeed(usage, response)
        self._ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if self._ended or self._pid != PROCESS.pid:
            return
        # A finalizer may run anywhere, inside a store too: it frees the socket, and leaves the settlement to the next call.
        self._reply.abort()
        self._attempt.runtime.unsettled_streams.append(self._stop)

    @shown_once_made
    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        next_ = ".response" if self._ended else "iterate it for chunks with .text; .routing; .response at the end"
        return f"<ChatStream {self.routing.provider}/{self.routing.account_id} {self.routing.model}: {state}; {next_}>"

    def _open(self) -> None:
        """Read up to the first content. Errors leave as they are, so that the walk goes on to the next candidate."""
        ready: list[ChatChunk] = []
        while not self._exhausted:
            ready += self._pull()
            if self._said:
                self._attempt.first_chunk()
                break
        self._ready = ready[::-1]
        if not self._exhausted:
            self._arm()
            self._bound_trailer()
        elif self._assembler.empty:
            raise MalformedResponseError(message="the stream held no answer")
        else:
            self._finish()

    def _arm(self) -> None:
        self._tail = inf
        self._reply.set_limits(self._left(), self._idle_s)

    def _bound_trailer(self) -> None:
        """Once the answer is whole, bound what may still come. Only content prolongs that; an end taken back lifts it."""
        tail = self._end.tail_s if self._decoder.complete else None
        if tail is None:
            if self._tail < inf:
                self._arm()
        elif self._said or tail < self._tail:
            self._tail = tail
            left = self._left()
            self._reply.set_limits(tail if left is None else min(tail, left))

    def _left(self) -> float | None:
        deadline = self._attempt.operation.deadline
        return None if deadline is None else max(deadline - self._attempt.runtime.clock.monotonic(), 0.0)

    def _more(self) -> None:
        if self._pid != PROCESS.pid:
            raise InferRouterError(
                "this stream belongs to the process that opened it: iterate it there, or make a call of your own"
            )
        self._reader = get_ident()
        try:
            if not self._stopped:
                self._read_on()
        finally:
            self._reader = 0  # before the look whether to stop, see `close`: one of the two sees the other
            if self._stopped:
                self._stop()

    def _read_on(self) -> None:
        try:
            chunks = self._pull()
            if self._exhausted:
                self._finish()
        except Exception as exc:
            failure = failure_of(exc, self._attempt.candidate)
            self._interrupt(provider_bug(exc, self._attempt.candidate) if failure is None else failure.error)
        else:
            self._ready = chunks[::-1]
            if chunks:
                self._quiet_since = None
            elif not self._ended:
                self._stay_quiet()

    def _pull(self) -> list[ChatChunk]:
        """The next chunks; sets `_exhausted` when nothing more will come, and `_said` if they bring content.

        Raises `WireFault` or `ProviderError` if the stream ends too early.
        """
        decoder, end = self._decoder, self._end
        self._said = False
        try:
            piece = self._reply.read_some()
            chunks = decoder.feed(piece) if piece else decoder.end()
        except (WireFault, ProviderError):
            if not decoder.complete or end.tail_s is None:
                raise
            self._exhausted = True
            return []
        for chunk in chunks:
            self._assembler.add(chunk)
            self._said |= end.add(chunk)
        if decoder.done:
            self._exhausted = True
        elif piece:
            self._bound_trailer()
        elif decoder.complete and not end.taken_back:
            self._exhausted = True
        elif not chunks:
            raise MalformedResponseError(message="the stream ended before its terminal marker")
        return chunks

    def _stay_quiet(self) -> None:
        """Interrupt a stream that has sent nothing but comments for too long, unless a timeout bounds it anyway."""
        now = self._attempt.runtime.clock.monotonic()
        if self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since > STALL_S and self._attempt.operation.deadline is None:
            fault = WireFault("timeout", f"nothing but comments for {STALL_S:.0f} s", sent=True)
            self._interrupt(error_from_fault(fault, self._attempt.candidate))

    def _finish(self) -> None:
        """Make the whole answer and settle it. Raises what a decoder raises that cannot make one; nothing is settled then."""
        with suppress(WireFault):
            self._reply.set_limits(LAST_PIECE_WAIT_S)
            while self._reply.read_some():
                pass
        response = self._assembled(self._assembler.usage or Usage(), complete=True)
        usage = usage_of(response, self._estimate)
        response = response.routed(self._attempt.routing_for(usage), usage)
        self._reply.close()
        self._response = response
        self._attempt.succeed(usage, response)
        self._ended = True

    def _interrupt(self, error: ProviderError) -> None:
        if self._stopped:
            return
        self._hang_up()
        usage, partial = self._came()
        partial = redacted_partial(partial, self._attempt.candidate)  # no other copy is left where a traceback shows locals
        self._attempt.fail(error, UNKNOWN_OUTCOME, usage)
        self._ended = True
        interrupted = StreamInterruptedError(partial, error)
        if self._attempt.operation.trace is not None:
            self._attempt.operation.trace.ends(interrupted)
        raise interrupted from error

    def _hang_up(self) -> None:
        self._ready.clear()
        with suppress(Exception):  # a wire may be of the caller's own
            if self._closer.setdefault(None, get_ident()) == get_ident():  # two threads would read at once
                self._reply.close()

    def _came(self) -> tuple[Usage, ChatResponse]:
        """What came so far, and what it used. Raises nothing: of what a provider's own code got wrong, nothing counts."""
        try:
            usage = self._seen()
            return usage, self._assembled(usage, complete=False)
        except Exception:
            self._assembler = Assembler()
            usage = self._seen()
            return usage, self._assembled(usage, complete=False)

    def _seen(self) -> Usage:
        """What was used as far as anybody can tell: the provider's figures so far, or an own count where that is larger."""
        stated = self._assembler.usage or Usage()
        prompt = max(stated.prompt_tokens, self._estimate.input_tokens)
        output = max(stated.completion_tokens, estimate_text(self._assembler.produced))
        own = (prompt, output) != (stated.prompt_tokens, stated.completion_tokens)
        return estimated(prompt, output) if own else Usage(prompt, output, prompt + output)

    def _assembled(self, usage: Usage, complete: bool) -> ChatResponse:
        natives = self._decoder.natives() if complete else {}
        routing = self._attempt.routing_for(usage)
        shape = getattr(getattr(self._attempt.operation.request, "response_format", None), "shape", None)
        return self._assembler.response(routing, usage, natives, complete).routed(routing, usage, shape)
