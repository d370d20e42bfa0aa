"""An open stream: chunks one by one, closed once, settled once, whichever way it ends.

Strategy: the walk reads until the first content, so that everything before it can still fail over; from there on the chunks go
straight to the caller. Only a terminal marker makes a stream complete; an end before it is an interruption and carries what
came. A stream that is dropped settles when it is collected. Must never know a wire format.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import inf
from types import TracebackType
from typing import Self

from .admission import Admission, Verb
from .answers import ChatChunk, ChatResponse
from .assemble import Assembler
from .candidates import Situation
from .chat import counted, dropped_by, encoder
from .errors import InferRouterError, MalformedResponseError, ProviderError, StreamInterruptedError
from .estimate import Estimate, estimate_text
from .health import Verdict
from .outcome import foreign, signed, translated, unquoted
from .provider import StreamDecoder
from .records import ChatRequest, Routing, Usage
from .transport import WireReply
from .wire import WireFault

__all__ = ["ChatStream", "stream_verb"]

TAIL_SECONDS = 2.0
"""How long a stream whose answer is complete may keep its usage to itself before it is closed."""

TOLD_TAIL_SECONDS = 0.25
"""The same where the usage was told with the answer, so that nothing but a correction can follow."""

LAST_PIECE_SECONDS = 0.02
"""How long the end of the body is waited for after the last event, so that the connection can be used again."""

STALL_SECONDS = 600.0
"""How long a stream may send nothing but comments, where no timeout bounds it."""


def stream_verb(
    request: ChatRequest, situation: Situation, deadline: float | None, max_wait: float, idle_s: float
) -> Verb[ChatStream]:
    """The verb of `Router.stream`. `deadline`: monotonic seconds or None; `idle_s`: longest silence in seconds."""

    def run(admission: Admission, reply: WireReply) -> ChatStream:
        found = admission.candidate
        stream = ChatStream(admission, reply, found.slot.seat.provider.decoder(found.model), situation.need, idle_s)
        try:
            stream._open()
        except BaseException:
            stream._ended = True
            reply.close()
            raise
        return stream

    return Verb(situation, encoder(request, stream=True), run, deadline, max_wait, dropped_by(request))


class ChatStream:
    """Iterate it for `ChatChunk`s in one thread; `with` or `close()` ends it early, `close()` from any thread.

    `routing` is known at once; `response` is the whole `ChatResponse` after the end. Iterating raises `StreamInterruptedError`
    (with `.partial`) if the answer breaks off, and nothing else.
    """

    def __init__(self, admission: Admission, reply: WireReply, decoder: StreamDecoder, need: Estimate, idle_s: float) -> None:
        self._ended = False
        self._stopped = False
        self._reading = False
        self._turn = threading.RLock()  # a signal handler may close the stream in whose middle it came
        self._admission = admission
        self._reply = reply
        self._decoder = decoder
        self._need = need
        self._idle_s = idle_s
        self._assembler = Assembler()
        self._ready: list[ChatChunk] = []
        self._over = False
        self._tail = inf
        self._last = 0.0
        self._response: ChatResponse | None = None
        self.routing: Routing = admission.routing

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

        While another thread waits for the next chunk, that thread stops waiting and ends the stream, without an error.
        """
        with self._turn:
            if self._ended:
                return
            if self._reading:
                self._stopped = True
                self._reply.hang_up()
                return
            self._ended = True
        self._stop()

    def _stop(self) -> None:
        try:
            self._reply.close()
        finally:
            self._ready.clear()
            usage = self._seen()
            self._response = self._assembled(usage, complete=False)
            self._admission.succeed(usage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_ended", True):
            return
        kit = self._admission.kit
        if kit.nest.depth == 0:
            self.close()
        else:
            self._reply.close()
            kit.orphans.append(self.close)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<ChatStream {self.routing.provider}/{self.routing.account_id} {self.routing.model}: {state}>"

    def _open(self) -> None:
        """Read up to the first content. Errors leave as they are, so that the walk goes on to the next candidate."""
        ready: list[ChatChunk] = []
        while not self._over:
            chunks = self._pull()
            ready += chunks
            if any(map(_has_content, chunks)):
                break
        self._ready = ready[::-1]
        if not self._over:
            self._arm()
            if self._decoder.complete:
                self._linger()
        elif self._assembler.empty:
            raise MalformedResponseError(message="the stream held no answer")
        else:
            self._finish()

    def _arm(self) -> None:
        self._tail = inf
        self._last = self._admission.kit.clock.monotonic()
        self._reply.arm(self._left(), self._idle_s)

    def _linger(self) -> None:
        """The answer is whole: bound, once, what may still come. Whatever trickles in after that prolongs nothing."""
        tail = TAIL_SECONDS if self._assembler.usage is None else TOLD_TAIL_SECONDS
        if tail < self._tail:
            self._tail = tail
            left = self._left()
            self._reply.arm(tail if left is None else min(tail, left))

    def _left(self) -> float | None:
        deadline = self._admission.verb.deadline
        return None if deadline is None else max(deadline - self._admission.kit.clock.monotonic(), 0.0)

    def _more(self) -> None:
        with self._turn:
            if self._ended:
                return
            self._reading = True
        try:
            self._read_on()
        finally:
            with self._turn:
                self._reading = False
                stop = self._stopped and not self._ended
                self._ended = self._ended or stop
            if stop:
                self._stop()

    def _read_on(self) -> None:
        try:
            chunks = self._pull()
        except WireFault as fault:
            self._interrupt(translated(fault, self._admission.candidate)[0])
        except ProviderError as error:
            self._interrupt(signed(error, self._admission.candidate))
        except Exception as exc:
            self._interrupt(foreign(exc, self._admission.candidate))
        else:
            self._ready = chunks[::-1]
            if self._over:
                self._finish()
            elif self._admission.verb.deadline is None:
                self._watch(bool(chunks))

    def _pull(self) -> list[ChatChunk]:
        """The next chunks; sets `_over` when nothing more will come. Raises `WireFault` or `ProviderError` if too early."""
        decoder = self._decoder
        try:
            piece = self._reply.read_some()
            chunks = decoder.feed(piece) if piece else decoder.end()
        except (WireFault, ProviderError):
            if not decoder.complete:
                raise
            self._over = True
            return []
        for chunk in chunks:
            self._assembler.add(chunk)
        if decoder.complete:
            if decoder.done or not piece:
                self._over = True
            else:
                self._linger()
        elif not piece and not chunks:
            raise MalformedResponseError(message="the stream ended before its terminal marker")
        elif self._tail < inf:  # another choice began after the last one had ended
            self._arm()
        return chunks

    def _watch(self, content: bool) -> None:
        now = self._admission.kit.clock.monotonic()
        if content:
            self._last = now
        elif now - self._last > STALL_SECONDS:
            fault = WireFault("timeout", f"nothing but comments for {STALL_SECONDS:.0f} s", sent=True)
            self._interrupt(translated(fault, self._admission.candidate)[0])

    def _finish(self) -> None:
        try:
            self._reply.arm(LAST_PIECE_SECONDS)
            while self._reply.read_some():
                pass
        except WireFault:
            pass
        self._reply.close()
        self._ended = True
        usage = counted(self._assembler.usage, self._need, produced=self._assembler.produced)
        self._response = self._assembled(usage, complete=True)
        self._admission.succeed(self._assembler.usage or usage, usage)

    def _interrupt(self, error: ProviderError) -> None:
        if self._stopped:
            return
        self._reply.close()
        self._ended = True
        self._ready.clear()
        usage = self._seen()
        self._admission.fail(error, "reservation", Verdict.FAILURE, usage)
        partial = unquoted(self._assembled(usage, complete=False), self._admission.candidate)
        raise StreamInterruptedError(partial, error) from error

    def _seen(self) -> Usage:
        """What was used as far as anybody can tell: the provider's figures so far, or an own count where that is larger."""
        told = self._assembler.usage or Usage()
        prompt = max(told.prompt_tokens, self._need.input_tokens)
        output = max(told.completion_tokens, estimate_text(self._assembler.produced))
        return Usage(prompt, output, prompt + output)

    def _assembled(self, usage: Usage, complete: bool) -> ChatResponse:
        natives = self._decoder.natives() if complete else {}
        return self._assembler.response(self._admission.routing_for(usage), usage, natives, complete)


def _has_content(chunk: ChatChunk) -> bool:
    return any(choice.delta.content or choice.delta.reasoning or choice.delta.tool_calls for choice in chunk.choices)
