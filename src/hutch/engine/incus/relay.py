"""Runs inside a container, as `python3 -c`: carries its input and output to a port of loopback.

Only its text is used here. One process with nothing below it, so that who ends it has ended all of
it; and for the Python of any image: nothing but what 3.6 has, and as few modules as can be.
"""

import _socket
import _thread
import os
import sys
import time

PIECE = 256 * 1024
LINGER = 5
REFUSED = 111


def main() -> None:
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.connect(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        os._exit(REFUSED)
    # What is small is not to wait for more.
    connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    # Says that it is connected. What follows is the other side's.
    os.write(1, b"+")
    _thread.start_new_thread(send, (connection,))
    try:
        while True:
            piece = memoryview(connection.recv(PIECE))
            if not piece:
                break
            while piece:
                piece = piece[os.write(1, piece) :]
    except OSError:
        pass
    os._exit(0)


def send(connection: "_socket.socket") -> None:
    try:
        while True:
            piece = os.read(0, PIECE)
            if not piece:
                break
            connection.sendall(piece)
        # The other side hears of the end, and may still take what it was sent.
        connection.shutdown(_socket.SHUT_WR)
        time.sleep(LINGER)
    except OSError:
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
