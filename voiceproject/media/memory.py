"""How much memory all requests of a web process may use at a time to decode audio, in bytes.

Who decodes claims what it will need at most, and gives it back. Beyond the budget claims wait, in turns between
tenants, and then are refused. Only memory that grows with what somebody sends is counted; each thread's own blocks are
a few MB. What is decoded in workers is not claimed: they have as many threads as jobs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import soundfile as sf
from django.conf import settings

from voiceproject.errors import PublicError
from voiceproject.media.content_type import NotTaken, sniff
from voiceproject.telemetry.logging import current

MIB = 1024 * 1024
WAIT_SECONDS = 60.0
# Threads that wait serve nobody else.
MOST_WAITING, MOST_WAITING_OF_ONE = 0.5, 0.25
SHARE_OF_ONE = 0.5

BLOCKS_BYTES = 4 * MIB  # what is in memory of a file that is read in blocks, whatever its length
# A forked process that decodes, as it is resident. All but 7 MB of it is shared with the process it was forked from.
CHILD_BYTES = 36 * MIB


class Claim:
    """Memory that a request has until the end of its block."""

    def __init__(self, budget: Budget, tenant: str, amount: int) -> None:
        self._budget, self.tenant, self.amount = budget, tenant, amount
        self.granted = threading.Event()

    def shrink(self, amount: int) -> None:
        """No more than so many bytes are needed from now on."""
        if amount < self.amount:
            self._budget._give_back(self, self.amount - amount)


class Budget:
    """So many bytes for all, and half of them for one tenant.

    A claim that alone is larger than the budget, or than its tenant's share, waits until nothing else is held, by
    anybody or by its tenant, and then is granted: it is served alone rather than never. A tenant whose turn it is, and
    whose claim does not fit yet, keeps the others from taking what becomes free.

    most_waiting, most_waiting_of_one: claims that may wait at a time.
    """

    def __init__(
        self, most: int, *, most_waiting: int = 40, most_waiting_of_one: int = 20, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._most, self._share = most, int(most * SHARE_OF_ONE)
        self._most_waiting, self._most_waiting_of_one = most_waiting, most_waiting_of_one
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        # The tenants that wait, in the order of their turns.
        self._waiting: OrderedDict[str, deque[Claim]] = OrderedDict()

    @property
    def held(self) -> int:
        """Bytes that are claimed now."""
        with self._lock:
            return self._held.total()

    @contextmanager
    def claim(self, amount: int, tenant: str | None = None) -> Iterator[Claim]:
        """This many bytes for the block. tenant: by default that of the request.

        Raises PublicError too_many_waiting (503), at once where too many wait already.
        """
        claim = Claim(self, current("tenant") if tenant is None else tenant, amount)
        with self._lock:
            queue = self._waiting.get(claim.tenant, deque())
            if not self._waiting and self._fits(claim):
                self._grant(claim)
            else:
                waiting = sum(map(len, self._waiting.values()))
                if waiting >= self._most_waiting or len(queue) >= self._most_waiting_of_one:
                    raise _refusal()
                queue.append(claim)
                self._waiting[claim.tenant] = queue
                self._grant_next()  # Others may wait for a share of their own.
        if not claim.granted.wait(self._wait_seconds) and not self._withdraw(claim):
            raise _refusal()
        try:
            yield claim
        finally:
            self._give_back(claim, claim.amount)

    def _fits(self, claim: Claim) -> bool:
        total = self._held.total()
        return self._fits_share(claim) and (total == 0 or total + claim.amount <= self._most)

    def _fits_share(self, claim: Claim) -> bool:
        own = self._held[claim.tenant]
        return own == 0 or own + claim.amount <= self._share

    def _grant(self, claim: Claim) -> None:
        self._held[claim.tenant] += claim.amount
        claim.granted.set()

    def _grant_next(self) -> None:
        """Grants what fits, one of each tenant in turn."""
        granted = True
        while granted:
            granted = False
            for tenant, queue in list(self._waiting.items()):
                if not self._fits_share(queue[0]):
                    continue
                if not self._fits(queue[0]):
                    return
                self._grant(queue.popleft())
                granted = True
                if queue:
                    self._waiting.move_to_end(tenant)
                else:
                    del self._waiting[tenant]

    def _withdraw(self, claim: Claim) -> bool:
        """Takes a claim that has waited too long from its line. True if it was granted at the last moment."""
        with self._lock:
            if claim.granted.is_set():
                return True
            queue = self._waiting[claim.tenant]
            queue.remove(claim)
            if not queue:
                del self._waiting[claim.tenant]
            self._grant_next()  # It may have kept others back.
            return False

    def _give_back(self, claim: Claim, amount: int) -> None:
        with self._lock:
            claim.amount -= amount
            self._held[claim.tenant] -= amount
            if not self._held[claim.tenant]:
                del self._held[claim.tenant]
            self._grant_next()


def _refusal() -> PublicError:
    message = "Too much audio is being decoded here already. Try again later."
    return PublicError("too_many_waiting", message, retry_after=5)


@functools.cache
def budget() -> Budget:
    """That of this process."""
    threads = settings.WEB_THREADS
    return Budget(
        settings.WEB_AUDIO_MEMORY_MIB * MIB,
        most_waiting=max(1, int(threads * MOST_WAITING)),
        most_waiting_of_one=max(1, int(threads * MOST_WAITING_OF_ONE)),
    )


_claimed: ContextVar[bool] = ContextVar("memory_claimed", default=False)


@contextmanager
def claim(amount: int) -> Iterator[Claim]:
    """Bytes of this process' budget for the block. Raises PublicError too_many_waiting (503).

    It may wait for a minute: enter it without a database connection (web.slots.waiting_slot). Within another claim's
    block it takes nothing: who has some and waits for more could wait for somebody who does the same.
    """
    if _claimed.get():
        yield Claim(budget(), "", 0)
        return
    with budget().claim(amount) as granted:
        token = _claimed.set(True)
        try:
            yield granted
        finally:
            _claimed.reset(token)


def to_decode(path: str | os.PathLike[str], max_seconds: float, bytes_per_second: float) -> int:
    """What it takes at most to decode an upload that is refused when it is longer, in bytes.

    bytes_per_second: that stay in memory of what was decoded.
    """
    seconds, exact = max_seconds, False
    with open(path, "rb") as file, contextlib.suppress(NotTaken):
        content = sniff(file)
        exact = content.exact  # Such a WAV is decoded without a child.
        # Of these the header tells the length for little, and no codec is asked; all others may be as long as allowed.
        if exact or content.kind == "flac":
            os.lseek(file.fileno(), content.start, os.SEEK_SET)
            # What libsndfile does not know is refused as soon as it is read, or read by the other decoder.
            with contextlib.suppress(sf.LibsndfileError), sf.SoundFile(file.fileno(), closefd=False) as sound:
                seconds = min(seconds, sound.frames / sound.samplerate)
    return BLOCKS_BYTES + int(seconds * bytes_per_second) + (0 if exact else CHILD_BYTES)
