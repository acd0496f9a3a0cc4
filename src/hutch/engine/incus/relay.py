"""Runs inside a container: carries connections to ports of its loopback.

Its input and output are frames: a letter, the number of a connection and a value, in four bytes
each. After `D` as many bytes follow as the value says. It begins with a `+`.

| letter | from hutch                   | to hutch                       |
|--------|------------------------------|--------------------------------|
| `O`    | connect it to that port      | it is connected                |
| `R`    |                              | it is not: the system's errno  |
| `D`    | bytes for what listens       | bytes from what listens        |
| `W`    | so many more bytes may come  | so many more bytes may come    |
| `E`    | nothing more comes           | nothing more comes             |
| `C`    | forget it                    | it is forgotten                |

Each side may send `WINDOW` bytes of a connection at first, so nobody who is slow keeps others
waiting.
Only the text of this file is used. One process with nothing below it, so that who ends it has ended
all of it; and for the Python of any image: nothing but what 3.6 has, and as few modules as can be.
"""

import _socket
import os
import select

HEAD = 9
PIECE = 64 * 1024
WINDOW = 1024 * 1024
UNDER_WAY = 115
"""EINPROGRESS."""


class Connection:
    def __init__(self, number: int, socket: "_socket.socket") -> None:
        self.number = number
        self.socket = socket
        self.is_connected = False
        self.is_over = False
        """What listens has closed its side."""
        self.is_broken = False
        """It takes nothing more."""
        self.ends = False
        """hutch has said that nothing more comes."""
        self.waiting = bytearray()
        self.credit = WINDOW
        self.watched = 0


class Relay:
    def __init__(self) -> None:
        self.poll = select.poll()
        self.poll.register(0, select.POLLIN)
        self.connections: dict[int, Connection] = {}
        self.by_file: dict[int, Connection] = {}
        self.rest = b""
        self.left = 0
        self.goal: Connection | None = None

    def run(self) -> None:
        write([b"+"])
        while True:
            ready = [(file, self.by_file.get(file), events) for file, events in self.poll.poll()]
            for file, connection, events in ready:
                if file == 0:
                    piece = os.read(0, 4 * PIECE)
                    if not piece:
                        return
                    self.take(piece)
                # Another one may have got its number meanwhile.
                elif connection is not None and self.by_file.get(file) is connection:
                    self.serve(connection, events)

    def take(self, piece: bytes) -> None:
        """Do as frames say, which may begin and end anywhere."""
        view = memoryview(self.rest + piece)
        at = 0
        while True:
            if self.left:
                part = view[at : at + self.left]
                if not part:
                    break
                at += len(part)
                self.left -= len(part)
                if self.goal is not None:
                    self.give(self.goal, part)
            elif len(view) - at >= HEAD:
                number = int.from_bytes(view[at + 1 : at + 5], "big")
                value = int.from_bytes(view[at + 5 : at + 9], "big")
                self.obey(bytes(view[at : at + 1]), number, value)
                at += HEAD
            else:
                break
        self.rest = bytes(view[at:])

    def obey(self, letter: bytes, number: int, value: int) -> None:
        known = self.connections.get(number)
        if letter == b"O":
            self.connect(number, value)
        elif letter == b"D":
            self.goal, self.left = known, value
        elif letter == b"C":
            if known is not None:
                self.forget(known)
            say(b"C", number, 0)
        elif known is not None and letter == b"W":
            known.credit += value
            self.watch(known)
        elif known is not None and letter == b"E":
            known.ends = True
            self.send(known)

    def connect(self, number: int, port: int) -> None:
        try:
            socket = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        except OSError as error:
            say(b"R", number, error.errno or 1)
            return
        socket.setblocking(False)
        # What is small is not to wait for more.
        socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        connection = Connection(number, socket)
        self.connections[number] = self.by_file[socket.fileno()] = connection
        code = socket.connect_ex(("127.0.0.1", port))
        if code == UNDER_WAY:
            self.watch(connection)
        else:
            self.connected(connection, code)

    def connected(self, connection: Connection, code: int) -> None:
        if code:
            say(b"R", connection.number, code)
            self.forget(connection)
            return
        connection.is_connected = True
        say(b"O", connection.number, 0)
        self.watch(connection)

    def serve(self, connection: Connection, events: int) -> None:
        if not connection.is_connected:
            code = connection.socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            self.connected(connection, code)
            return
        if connection.watched & select.POLLIN and events & ~select.POLLOUT:
            self.receive(connection)
        if connection.waiting:
            self.send(connection)
        self.watch(connection)

    def receive(self, connection: Connection) -> None:
        try:
            piece = connection.socket.recv(min(PIECE, connection.credit))
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if piece:
            connection.credit -= len(piece)
            say(b"D", connection.number, len(piece), piece)
        else:
            connection.is_over = True
            say(b"E", connection.number, 0)

    def give(self, connection: Connection, part: "memoryview") -> None:
        connection.waiting += part
        self.send(connection)

    def send(self, connection: Connection) -> None:
        """As much of what waits as is taken now."""
        count = len(connection.waiting)
        try:
            if count and not connection.is_broken:
                count = connection.socket.send(connection.waiting)
        except BlockingIOError:
            count = 0
        except OSError:
            # Lost, now and from here on: whoever writes is not to wait for that.
            connection.is_broken = True
        if count:
            del connection.waiting[:count]
            say(b"W", connection.number, count)
        if connection.ends and not connection.waiting and not connection.is_broken:
            connection.is_broken = True
            try:  # noqa: SIM105 - no module more
                connection.socket.shutdown(_socket.SHUT_WR)
            except OSError:
                pass
        self.watch(connection)

    def watch(self, connection: Connection) -> None:
        """Ask for what can be done now. Nothing is asked for where nothing can: else the end of a
        connection would be told without end."""
        wanted = 0
        if not connection.is_connected or connection.waiting:
            wanted |= select.POLLOUT
        if connection.is_connected and connection.credit > 0 and not connection.is_over:
            wanted |= select.POLLIN
        if wanted == connection.watched:
            return
        if not wanted:
            self.poll.unregister(connection.socket.fileno())
        else:
            self.poll.register(connection.socket.fileno(), wanted)
        connection.watched = wanted

    def forget(self, connection: Connection) -> None:
        if connection.watched:
            self.poll.unregister(connection.socket.fileno())
        del self.connections[connection.number], self.by_file[connection.socket.fileno()]
        connection.socket.close()
        if self.goal is connection:
            self.goal = None


def say(letter: bytes, number: int, value: int, content: bytes = b"") -> None:
    head = letter + number.to_bytes(4, "big") + value.to_bytes(4, "big")
    write([head, content] if content else [head])


def write(pieces: "list[bytes]") -> None:
    sent = os.writev(1, pieces)
    whole = sum(len(piece) for piece in pieces)
    if sent < whole:
        rest = memoryview(b"".join(pieces))[sent:]
        while rest:
            rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    try:  # noqa: SIM105 - no module more
        Relay().run()
    except OSError:
        # Nobody listens any more.
        pass
    os._exit(0)
