"""TLS: keys like those of a coordinator, and a connection with them."""

import contextlib
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from nucleiseg.cluster.rendezvous import Keys, make_keys
from nucleiseg.doctor.check import Check, failed, passed, warned
from nucleiseg.runs import CountRun

_LIMIT_S = 10.0


def check_encryption() -> Iterator[Check]:
    """Make keys, and have a client and a server of this machine shake hands."""
    version = ssl.OPENSSL_VERSION
    if re.match(r"OpenSSL (0|1\.0)", version):
        yield warned("OpenSSL", version, "use a Python with OpenSSL 1.1.1 or later")
    else:
        yield passed("OpenSSL", version)
    remedy = "workers cannot reach their coordinator: pip install --upgrade {}"
    try:
        with tempfile.TemporaryDirectory(prefix="nucleiseg-") as folder:
            _, keys = make_keys(CountRun(Path(folder)))
            protocol = _shake_hands(keys)
    except ImportError as error:
        words = " ".join(str(error).split())
        yield failed("TLS", words, remedy.format("cryptography distributed"))
        return
    except (OSError, ValueError, RuntimeError) as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())}"
        yield failed("TLS", words, remedy.format("cryptography"))
        return
    yield passed("TLS", f"{protocol} over loopback, with keys made for it")


def _shake_hands(keys: Keys) -> str:
    """Connect as a worker to a coordinator; give the protocol agreed upon."""
    security = keys.security()
    # dask's own contexts: what it refuses is to be refused here.
    server = security.get_listen_args("scheduler")["ssl_context"]
    client = security.get_connection_args("worker")["ssl_context"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_LIMIT_S)
        thread = threading.Thread(target=_serve, args=(listener, server), daemon=True)
        thread.start()
        with (
            socket.create_connection(listener.getsockname(), _LIMIT_S) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"hello")
            if connection.recv(5) != b"hello":
                raise RuntimeError("what was sent did not come back")
            protocol = str(connection.version())
        thread.join(_LIMIT_S)
    return protocol


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    # What goes wrong here the client hears of.
    with contextlib.suppress(OSError):
        plain, _ = listener.accept()
        plain.settimeout(_LIMIT_S)
        with context.wrap_socket(plain, server_side=True) as connection:
            connection.sendall(connection.recv(5))
