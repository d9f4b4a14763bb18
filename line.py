"""The waiting line for the model: who is served, who waits and at which place. First come, first served.

One line for page and API alike: Gradio's own concurrency limits count those separately. Knows nothing of models.
"""

import asyncio
from collections import deque

from errors import RemansoError


class Line:
    """A fair semaphore whose waiters know their place. To be used from one event loop."""

    def __init__(self, seats: int, places: int) -> None:
        """Serves `seats` at once and lets `places` wait."""
        self._seats = self._free = seats
        self._places = places
        self._waiting: deque[Ticket] = deque()

    @property
    def served(self) -> int:
        """How many are served now."""
        return self._seats - self._free

    def join(self) -> "Ticket":
        """Takes a place.

        Raises:
            RemansoError: `line_full`.
        """
        ticket = Ticket(self)
        if self._free and not self._waiting:
            self._free -= 1
            ticket.served.set()
        elif len(self._waiting) >= self._places:
            raise RemansoError("line_full", places=self._places)
        else:
            self._waiting.append(ticket)
        return ticket

    def place(self, ticket: "Ticket") -> int:
        """Returns how many are before this ticket, itself included; 0 when it is served."""
        return self._waiting.index(ticket) + 1 if ticket in self._waiting else 0

    def leave(self, ticket: "Ticket") -> None:
        """Gives the place or the seat back; the next one in line is served."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif not ticket.left:
            if self._waiting:
                self._waiting.popleft().served.set()
            else:
                self._free += 1
        ticket.left = True


class Ticket:
    """One turn's place in the line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.served = asyncio.Event()
        self.left = False

    @property
    def place(self) -> int:
        return self._line.place(self)

    def leave(self) -> None:
        self._line.leave(self)

    async def wait(self, seconds: float) -> bool:
        """Waits for the seat, and returns whether it is ours."""
        try:
            await asyncio.wait_for(self.served.wait(), seconds)
        except TimeoutError:
            return False
        return True
