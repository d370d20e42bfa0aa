"""Proxies of the environment, as urllib takes them, and never a key in the clear."""

from __future__ import annotations

import socket
import threading
import unittest
from typing import Any

from tests.cases import KEY, WireCase, transport
from tests.servers import OK, Peer, ScriptedServer, answering, environment


def tunnel(peer: Peer) -> None:
    """A CONNECT proxy: grants the tunnel and copies bytes both ways."""
    asked = peer.request()
    if asked is None:
        return
    host, _, port = asked.split(b" ")[1].decode().rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port))) as onward:
        peer.send(b"HTTP/1.1 200 Connection established\r\nX: 1\r\n\r\n")
        back = threading.Thread(target=_copy, args=(onward, peer.sock), daemon=True)
        back.start()
        _copy(peer.sock, onward)
        back.join(5)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Proxies(WireCase):
    def through(self, proxy: Any, **variables: str) -> Any:
        """A transport made in an environment that names `proxy`."""
        self.enterContext(environment(https_proxy=proxy if isinstance(proxy, str) else proxy.url, **variables))
        return self.transport()

    def test_https_goes_through_a_tunnel(self) -> None:
        """An https call asks the proxy for a tunnel, shows it no key, and keeps the tunnel for the next call."""
        with ScriptedServer(answering(OK), "good") as server, ScriptedServer(tunnel) as proxy:
            wire = self.through(proxy)
            for reused in (False, True):
                reply = self.send(server.url, wire=wire)
                self.assertEqual((reply.read(), server.reused), (b"ok", reused))
            wire.close()
            asked = [request for _, request in proxy.requests]
            self.assertEqual(len(asked), 1)
            self.assertTrue(asked[0].startswith(b"CONNECT " + server.netloc.encode() + b" HTTP/1.1\r\n"))
            self.assertNotIn(KEY.encode(), asked[0])
            self.assertIn(KEY.encode(), server.requests[0][1])
            self.assertIn(b"Host: " + server.netloc.encode(), server.requests[0][1])

    def test_the_proxys_password_stays_with_the_proxy(self) -> None:
        """Credentials in the proxy's URL go to the proxy alone, and into no fault."""
        with ScriptedServer(answering(OK), "good") as server, ScriptedServer(tunnel) as proxy:
            wire = self.through(f"http://user:pa55word@{proxy.netloc}")
            self.assertEqual(self.send(server.url, wire=wire).read(), b"ok")
            wire.close()
            self.assertIn(b"Proxy-Authorization: Basic dXNlcjpwYTU1d29yZA==", proxy.requests[0][1])
            self.assertNotIn(b"roxy-", server.requests[0][1])
        fault = self.fault(server.url, wire=wire)
        self.assertEqual((fault.kind, fault.sent), ("proxy", False))
        self.assertNotIn("pa55word", f"{fault} {fault!r} {fault.__cause__!r}")

    def test_no_proxy(self) -> None:
        """A host that no_proxy names is reached straight."""
        with ScriptedServer(answering(OK), "good") as server, ScriptedServer(tunnel) as proxy:
            wire = self.through(proxy, no_proxy="127.0.0.1")
            self.assertEqual(self.send(server.url, wire=wire).read(), b"ok")
            self.assertEqual(proxy.connections, 0)

    def test_no_key_in_the_clear(self) -> None:
        """A plain http call with a key is not sent through a proxy; one without goes out with its whole URL."""
        with ScriptedServer(answering(OK)) as proxy:
            wire = self.through(proxy, http_proxy=proxy.url)
            fault = self.fault("http://h.example/v1", wire=wire, allow_http=True)
            self.assertEqual((fault.kind, fault.sent, proxy.connections), ("proxy", False, 0))
            for reused in (False, True):
                reply = wire.send(transport.WireRequest("http://h.example/v1?a=b", b"x"), timeout_s=5, allow_http=True)
                self.assertEqual((reply.read(), proxy.reused), (b"ok", reused))
            self.assertTrue(proxy.requests[0][1].startswith(b"POST http://h.example/v1?a=b HTTP/1.1\r\n"))
            self.assertIn(b"Host: h.example\r\n", proxy.requests[0][1])

    def test_refusals(self) -> None:
        """A proxy that refuses, answers nonsense, says nothing or is not there sent nothing, and leaves no connection."""
        scripts = {
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno": "407",
            b"HTTP/1.1 502 Bad\r\n\r\n": "502",
            b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok": "proxy",
            b"nonsense\r\n\r\n": "proxy",
            b"": "proxy",
        }
        for answer, word in scripts.items():
            with ScriptedServer(lambda peer, answer=answer: [peer.request(), peer.send(answer), answer and peer.gone()]) as proxy:
                fault = self.fault("https://h.example/", wire=self.through(proxy))
                self.assertEqual((fault.kind, fault.sent), ("proxy", False), answer)
                self.assertIn(word, str(fault))
        with ScriptedServer(lambda peer: peer.wait()) as proxy:
            fault = self.fault("https://h.example/", wire=self.through(proxy), timeout_s=0.1)
            self.assertEqual((fault.kind, fault.sent), ("timeout", False))
        fault = self.fault("https://h.example/", wire=self.through(proxy))
        self.assertEqual((fault.kind, fault.sent), ("proxy", False))

    def test_unknown_kinds(self) -> None:
        """A proxy of a kind that urllib cannot use is a fault, not a way round it."""
        with ScriptedServer(lambda peer: [peer.sock.recv(100), peer.send(b"\x05\xff")]) as proxy:
            wire = self.through(f"socks5://{proxy.netloc}", http_proxy=f"socks5://{proxy.netloc}")
            for url in ("https://h.example/", "http://h.example/"):
                with self.assertRaises(transport.WireFault) as caught:
                    wire.send(transport.WireRequest(url), timeout_s=5, allow_http=True)
                self.assertEqual((caught.exception.kind, caught.exception.sent), ("proxy", False))


if __name__ == "__main__":
    unittest.main()
