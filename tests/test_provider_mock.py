"""The scripted provider, through a real router: every kind of reply, the log, delays, cuts, threads."""

from __future__ import annotations

import threading
import unittest
from typing import Any

from tests import part

records = part("records")
errors = part("errors")
mock = part("provider_mock")
WireFault = part("wire").WireFault
account = part("account")
Config = part("config").Config
Router = part("router").Router
ChatRequest = records.ChatRequest


def router(provider: Any, accounts: int = 1, **options: Any) -> Any:
    made = [account.AccountConfig(provider=provider.name, id=f"a{i}", auth=account.Auth("k")) for i in range(accounts)]
    return Router(Config(accounts=made, default_model=f"{provider.name}/m", **options), [provider])


def asked(*replies: Any, accounts: int = 1, **options: Any) -> Any:
    with router(mock.MockProvider(replies=replies), accounts, **options) as made:
        return made.chat_completion(ChatRequest("Hi"))


def refusal(*replies: Any) -> Any:
    """The error of the one attempt that `replies` make fail."""
    try:
        asked(*replies)
    except errors.AllCandidatesFailedError as exc:
        return exc.attempts[0].error
    except errors.ProviderError as exc:
        return exc
    raise AssertionError("nothing failed")


class RepliesTest(unittest.TestCase):
    def test_in_order_then_the_default(self) -> None:
        """Replies are used up in order, then the default answers for ever."""
        provider = mock.MockProvider(replies=["one", "two"], default="rest")
        with router(provider) as made:
            texts = [made.chat_completion(ChatRequest("Hi")).text for _ in range(4)]
        self.assertEqual(texts, ["one", "two", "rest", "rest"])

    def test_log(self) -> None:
        """Every request is in the log with model, body and whether it asked for a stream."""
        provider = mock.MockProvider()
        with router(provider) as made:
            made.chat_completion(ChatRequest("Hi", temperature=0.5))
            with made.stream(ChatRequest("Hello")) as stream:
                self.assertEqual("".join(chunk.text for chunk in stream), "mock reply")
        first, second = provider.calls
        self.assertEqual((first.model, first.stream, first.body["temperature"]), ("m", False, 0.5))
        self.assertEqual((second.stream, second.body["messages"][0]["content"]), (True, "Hello"))

    def test_a_whole_answer(self) -> None:
        """A ChatResponse comes out as it went in, whole and streamed."""
        answers = part("responses")
        message = records.Message("assistant", "Hi", [records.ToolCall("c1", "f", '{"a":1}')], reasoning="hm")
        usage = records.Usage(7, 5, 12, 3, 2, {"audio": 4, "text": 3})
        given = answers.ChatResponse("id-1", "m-2", (answers.Choice(0, message, "tool_calls"),), usage)
        provider = mock.MockProvider(replies=[given, given])
        with router(provider) as made:
            whole = made.chat_completion(ChatRequest("Hi"))
            with made.stream(ChatRequest("Hi")) as stream:
                list(stream)
        for reply in (whole, stream.response):
            self.assertEqual((reply.text, reply.reasoning, reply.tool_calls), ("Hi", "hm", message.tool_calls))
            self.assertEqual((reply.id, reply.model, reply.usage, reply.finish_reason), ("id-1", "m-2", usage, "tool_calls"))

    def test_statuses(self) -> None:
        """A status is answered as a real server would, and means what the error table says."""
        for status, kind in ((429, "RateLimitedError"), (503, "ProviderUnavailableError"), (401, "AuthenticationError")):
            error = refusal(status)
            self.assertEqual((type(error).__name__, error.status), (kind, status))
        error = refusal(mock.MockReply(status=429, headers={"Retry-After": "7"}))
        self.assertEqual(error.retry_after, 7.0)

    def test_scripted_errors_keep_their_facts(self) -> None:
        """A scripted ProviderError comes out as its class with its facts, and the script's own object is left alone."""
        given = errors.RateLimitedError(retry_after=33.0, message="slow down", scope="model")
        error = refusal(given)
        self.assertEqual((type(error), error.retry_after, error.scope), (errors.RateLimitedError, 33.0, "model"))
        self.assertEqual((error.account_id, given.account_id), ("a0", ""))
        for kind, status in (
            (errors.QuotaExceededError, 429),
            (errors.ModelNotFoundError, 404),
            (errors.ContextWindowError, 400),
            (errors.ProviderUnavailableError, 503),
            (errors.AttemptTimeoutError, None),
        ):
            error = refusal(kind(message="x"))
            self.assertEqual((type(error), error.status), (kind, status))
        self.assertEqual(refusal(errors.ProviderUnavailableError(status=529)).status, 529)

    def test_faults_and_functions(self) -> None:
        """A WireFault is a lost connection; a function sees the body and decides."""
        self.assertIsInstance(refusal(WireFault("refused", "no", sent=False)), errors.ProviderUnavailableError)
        self.assertEqual(asked(lambda body: "you said " + body["messages"][0]["content"]).text, "you said Hi")
        self.assertEqual(refusal(lambda body: 503).status, 503)

    def test_fails_over(self) -> None:
        """The walk goes on to the next account after a scripted failure."""
        self.assertEqual(asked(503, "second", accounts=2).routing.attempts, 2)

    def test_nonsense_is_said_clearly(self) -> None:
        """A reply that is none is a configuration error that names the kinds there are."""
        with self.assertRaisesRegex(errors.ConfigError, "MockReply"):
            asked(3.5)

    def test_vectors(self) -> None:
        """Embeddings are answered too: the same text has the same vector."""
        with router(mock.MockProvider()) as made:
            first = made.embed(records.EmbedRequest(["a", "b", "a"])).embeddings
        self.assertEqual((len(first), first[0] == first[2], first[0] == first[1]), (3, True, False))


class TimeTest(unittest.TestCase):
    def test_delays(self) -> None:
        """A delay sleeps through the given sleep only, and one longer than the timeout is a timeout."""
        slept: list[float] = []
        provider = mock.MockProvider(
            replies=[mock.MockReply("a", delay_s=5), mock.MockReply("b", delay_s=50)], sleep=slept.append
        )
        with router(provider, attempt_timeout=10) as made:
            self.assertEqual(made.chat_completion(ChatRequest("Hi")).text, "a")
            with self.assertRaises(errors.AllCandidatesFailedError) as caught:
                made.chat_completion(ChatRequest("Hi"))
        self.assertIsInstance(caught.exception.attempts[0].error, errors.AttemptTimeoutError)
        self.assertEqual([round(seconds) for seconds in slept], [5, 10])

    def test_cut(self) -> None:
        """A stream that is cut after content is interrupted and keeps what came; a whole answer that is cut fails."""
        provider = mock.MockProvider(
            replies=[mock.MockReply(chunks=["a", "b", "c"], cut_after=3), mock.MockReply("x", cut_after=0)]
        )
        with router(provider) as made:
            with self.assertRaises(errors.StreamInterruptedError) as caught, made.stream(ChatRequest("Hi")) as stream:
                list(stream)
            self.assertEqual(caught.exception.partial.text, "ab")
            with self.assertRaises(errors.AllCandidatesFailedError):
                made.chat_completion(ChatRequest("Hi"))

    def test_chunks(self) -> None:
        """A streamed text comes in as many pieces as asked."""
        provider = mock.MockProvider(replies=[mock.MockReply("abcdef", chunks=3), mock.MockReply("one two")])
        with router(provider) as made:
            for want in (["ab", "cd", "ef"], ["one ", "two"]):
                with made.stream(ChatRequest("Hi")) as stream:
                    self.assertEqual([chunk.text for chunk in stream if chunk.text], want)

    def test_raw_bodies(self) -> None:
        """A raw body is served as it is: a page instead of an answer is malformed."""
        self.assertIsInstance(refusal(mock.MockReply(body="<html>")), errors.MalformedResponseError)

    def test_threads(self) -> None:
        """Sixteen threads get each reply exactly once."""
        replies = [str(i) for i in range(160)]
        provider = mock.MockProvider(replies=replies)
        seen: list[str] = []
        with router(provider) as made:

            def work() -> None:
                for _ in range(10):
                    seen.append(made.chat_completion(ChatRequest("Hi")).text)

            threads = [threading.Thread(target=work) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(sorted(seen), sorted(replies))
        self.assertEqual(len(provider.calls), 160)


if __name__ == "__main__":
    unittest.main()
