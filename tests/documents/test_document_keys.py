"""CURVE keys: who has none that the other knows neither hears nor is heard."""

from __future__ import annotations

import contextlib
import sys

import pytest
from document_wire import LIMIT_S, Proxy, run_of, take

from tomostream_ioc.documents.transport import CurveKeys, DocumentPublisher, DocumentReceiver
from tomostream_ioc.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("server.key", None, "There is no CURVE key"),
        ("client.key_secret", "no key", "can't be read"),
        ("client.key_secret", 'public-key = "{public}"', "holds no secret key"),
        ("client.key_secret", 'public-key = "{public}"\nsecret-key = "abc"', "no CURVE key of 40"),
        ("server.key", 'public-key = "' + 39 * "a" + ' "', "no CURVE key of 40"),
    ],
)
def test_keys_that_a_client_can_not_use_are_refused_with_the_file(tmp_path, name, text, says):
    keys = CurveKeys.create(tmp_path / "keys")
    keys.check(binds=False)
    (keys.folder / name).unlink()
    if text is not None:
        (keys.folder / name).write_text(text.format(public=40 * "a"))
    with pytest.raises(ConfigError, match=says) as refused:
        keys.check(binds=False)
    assert str(keys.folder / name) in str(refused.value)


def test_curve_lets_in_whom_it_knows(tmp_path):
    keys = CurveKeys.create(tmp_path / "keys")
    assert sys.platform == "win32" or (keys.folder / "server.key_secret").stat().st_mode & 0o77 == 0
    stranger = CurveKeys.create(tmp_path / "stranger")
    # the stranger knows the server, the server not the stranger
    (stranger.folder / "server.key").write_bytes((keys.folder / "server.key").read_bytes())
    with contextlib.closing(Proxy("--curve-keys", str(keys.folder))) as proxy:
        let_in(proxy, keys, [stranger, None])
        assert proxy.close(LIMIT_S) == 0, proxy.output


def let_in(proxy: Proxy, keys: CurveKeys, wrong: list[CurveKeys | None]) -> None:
    """Documents come to who has ``keys``, and neither to nor from those with ``wrong`` ones."""
    with contextlib.ExitStack() as stack:

        def receiver(keys: CurveKeys | None) -> DocumentReceiver:
            made = DocumentReceiver(proxy.ports[1], prefix=b"raw", keys=keys)
            return stack.enter_context(contextlib.closing(made))

        def publisher(keys: CurveKeys | None) -> DocumentPublisher:
            made = DocumentPublisher(proxy.ports[0], prefix=b"raw", keys=keys)
            stack.callback(made.close, 0.0)
            return made

        listener, publish = receiver(keys), publisher(keys)
        take(listener, lambda: listener.connected)
        assert publish.wait_for_listener(LIMIT_S)
        documents = list(run_of(1))
        for name, doc in documents:
            publish(name, doc)
        got = take(listener, lambda: listener.counts.documents >= 4)
        assert [name for name, _ in got] == [name for name, _ in documents]
        for each in wrong:
            assert not publisher(each).wait_for_listener(2.0)
            deaf = receiver(each)
            for name, doc in documents:
                publish(name, doc)
            assert deaf.receive(1.0) is None
            assert not deaf.connected
