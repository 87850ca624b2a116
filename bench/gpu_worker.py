"""Runs the items of `bench.gpu` in a process of its own.

A kernel that accesses memory of others takes the card's context with it, and one that does not end holds its
process. So a further process runs the items and tells of each before and after it. It is replaced behind an
item that has ended it, that takes too long, or that has lost the card.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ovjit.gpu import driver

#: Seconds for one item: a kernel that does not end is killed with its process. PyTorch compiles in some.
ITEM_SECONDS = 75.0
#: What a line of the worker begins with; others are of libraries.
MARK = "bench.gpu: "
#: A message of the worker, or of `follow_items`: see there.
Message = dict[str, Any]


class Item(NamedTuple):
    """A check, which returns whether it is right (None: it has nothing to check), or a measurement, which
    returns rows of results."""

    name: str
    run: Callable[[], Any]


#: Title and items of a part of the script. Items are made when it is their turn.
Section = tuple[str, Callable[[], Iterator[Item]]]


def is_lost(number: int = 0) -> bool:
    """True if a card does not answer any more in this process."""
    try:
        card = driver.open_card(number)
        stream = card.create_stream()
        card.synchronize(stream)
        card.destroy_stream(stream)
    except Exception:
        return True
    return False


def run_items(sections: Sequence[Section], start: Sequence[int]) -> Iterator[Message]:
    """Run the items from number start[1] of section start[0] on. Yields a message before and after each. Ends
    early if the card is lost."""
    for number, (title, make_items) in enumerate(sections):
        if number < start[0]:
            continue
        first = start[1] if number == start[0] else 0
        items, at = make_items(), 0
        while True:
            message = {"title": title, "at": [number, at], "name": f"item {at}"}
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:  # further items of this section cannot be made
                yield {**message, "error": describe(error)}
                break
            at += 1
            if at <= first:
                continue
            message["name"] = item.name
            yield {**message, "begins": True}
            try:
                result = {"result": item.run()}
            except Exception as error:
                result = {"error": describe(error), "lost": is_lost()}
            yield {**message, **result}
            if result.get("lost"):
                return
    yield {"done": True}


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:400]


def serve(messages: Iterator[Message]) -> None:
    """Write messages to the standard output."""
    for message in messages:
        print(MARK + json.dumps(message), flush=True)


class Worker:
    """A process whose messages arrive one by one."""

    def __init__(self, command: Sequence[str]):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
        self._messages: queue.Queue[Message | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                self._messages.put(json.loads(line.removeprefix(MARK)))
            else:
                sys.stderr.write(line)
        self._messages.put(None)

    def receive(self, seconds: float) -> Message | None:
        """The next message; None at the end of the process. Raises TimeoutError."""
        try:
            return self._messages.get(timeout=max(seconds, 0))
        except queue.Empty:
            raise TimeoutError from None

    def end(self) -> str:
        """End the process. Returns how it has ended."""
        if self.process.poll() is None:
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return f"the process ended with {self.process.wait()}"


def follow_items(
    start_worker: Callable[[Sequence[int]], Any], seconds: float, item_seconds: float = ITEM_SECONDS
) -> Iterator[Message]:
    """Yield the messages of workers with results and errors, of which there is one after the other until all
    items are done: {"done": True}. {"over": True} after so many seconds, and {"broken": reason} if a worker
    ends before an item begins."""
    end, position = time.monotonic() + seconds, [0, 0]
    while True:
        worker, running = start_worker(position), None
        while True:
            remaining = end - time.monotonic()
            try:
                message = worker.receive(min(item_seconds, remaining))
            except TimeoutError:
                worker.process.kill()
                if remaining <= item_seconds:
                    yield {"over": True}
                    return
                message, reason = None, f"no answer in {item_seconds:g} s"
            else:
                reason = "" if message is not None else worker.end()
            if message is None:
                if running is None:
                    yield {"broken": reason}
                    return
                yield {**running, "error": reason}
            elif message.get("begins"):
                running = {key: message[key] for key in ("title", "at", "name")}
                continue
            else:
                yield message
                if message.get("done") or message.get("broken"):
                    worker.end()
                    return
                if not message.get("lost"):
                    running = None
                    continue
                worker.end()
            assert running is not None
            position = [running["at"][0], running["at"][1] + 1]
            break
