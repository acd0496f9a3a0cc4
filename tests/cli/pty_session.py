"""`hutch` on a terminal: what a person sees, and what they type."""

import codecs
import os
import pty
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field

from tests.cli.server import PLAIN, PROGRAM, Person

PATIENCE = 30.0


@dataclass
class Session:
    """One running command whose standard streams are a terminal."""

    process: subprocess.Popen[bytes]
    terminal: int
    seen: str = ""
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def expect(self, text: str) -> str:
        """Everything seen so far, once `text` is among it."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"no {text!r} in {self.seen!r}"
            if select.select([self.terminal], [], [], left)[0]:
                more = self._read()
                assert more, f"it ended without {text!r}: {self.seen!r}"
                self.seen += more
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Read to the end; the exit code."""
        while more := self._read():
            self.seen += more
        os.close(self.terminal)
        return self.process.wait(PATIENCE)

    def _read(self) -> str:
        """What came next; empty at the end. A read may stop in the middle of a character."""
        while True:
            try:
                content = os.read(self.terminal, 65536)
            except OSError:
                # Linux says EIO when the other end is closed.
                return ""
            if (text := self._decoder.decode(content)) or not content:
                return text


def on_terminal(person: Person, *words: str, **variables: str) -> Session:
    """Start `hutch` on a terminal of its own."""
    known = PLAIN | person.signed_in | variables
    terminal, its_side = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdin=its_side,
        stdout=its_side,
        stderr=its_side,
        env=known,
        start_new_session=True,
    )
    os.close(its_side)
    return Session(process, terminal)
