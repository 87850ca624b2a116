"""Runs the items of `bench.gpu` in a process of its own.

A kernel that accesses memory of others takes the card's context with it, and one that does not end holds its
process. So a further process runs the items and tells of each before and after it. It is replaced behind an
item that has ended it, that takes too long, or that has lost the card. The first such items run once more,
kernel by kernel, so that the error has the name of the kernel.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from ovjit.codegen.gpu.functions import ptx_of
from ovjit.execution import runner
from ovjit.gpu import driver
from ovjit.gpu.device_job import DeviceJob

#: Seconds for one item: a kernel that does not end is killed with its process. PyTorch compiles in some. The
#: same for an item that runs again, and how many do.
ITEM_SECONDS, AGAIN_SECONDS, MOST_AGAIN = 75.0, 30.0, 3
#: What a line of the worker begins with; others are of libraries.
MARK = "bench.gpu: "
#: A message of the worker, or of `follow_items`: see there.
Message = dict[str, Any]


class Item(NamedTuple):
    """A check, which returns whether it is right (None: it has nothing to check), or a measurement, which
    returns rows of results. `seconds`: how long it may take; 0 for the usual time."""

    name: str
    run: Callable[[], Any]
    seconds: float = 0


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


def run_items(
    sections: Sequence[Section], start: Sequence[int], checks_end: float = float("inf")
) -> Iterator[Message]:
    """Run the items from number start[1] of section start[0] on; with a third number, this one alone. Yields
    a message before and after each. Ends early if the card is lost. Sections with a title are left at the
    time `checks_end` of the clock, so that measurements have the rest."""
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
            if title and time.time() >= checks_end:
                yield {"title": title, "left": item.name}
                break
            message["name"] = item.name
            yield {**message, "begins": True, "seconds": item.seconds}
            try:
                result = {"result": item.run()}
            except Exception as error:
                result = {"error": describe(error), "lost": is_lost()}
            yield {**message, **result}
            if result.get("lost") or len(start) > 2:
                return
    yield {"done": True}


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:1500]


def run_kernel_by_kernel() -> None:
    """From now on, jobs tell of each kernel before it runs, and wait for its end."""

    def run_steps(self: Any, state: Any, replay: Any, table: Any, first: int, stop: int) -> None:
        for i in range(first, stop):
            number = int(table.rows[i, runner.STEP_KERNEL])
            chunks, step = int(table.rows[i, runner.STEP_CHUNKS]), table.plan.steps[i]
            name = f"step {i} of {len(table.plan.steps)}, {step.type}: {ptx_of(number).name}, {chunks} chunks"
            serve(iter([{"kernel": name}]))
            self._launch(state, replay, table, i, self._functions(state.card, table, i, i + 1)[0])
            state.card.synchronize(state.stream)

    DeviceJob._run_steps = run_steps  # type: ignore[method-assign]


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
        """End the process. Returns how it has ended. The driver may keep it from that."""
        for end in (self.process.kill, lambda: None):
            try:
                return f"the process ended with {self.process.wait(2)}"
            except subprocess.TimeoutExpired:
                end()
        return "the process does not end"


def follow_items(
    start_worker: Callable[[Sequence[int]], Any], seconds: float, item_seconds: float = ITEM_SECONDS
) -> Generator[Message, None, None]:
    """Yield the messages of workers with results and errors, of which there is one after the other until all
    items are done: {"done": True}. {"over": True} after so many seconds, and {"broken": reason} if a worker
    ends before an item begins. `start_worker`: given the numbers of a section and an item; with a third
    number, it runs that item alone, kernel by kernel."""
    end, position, again = time.monotonic() + seconds, [0, 0], 0
    while True:
        failed = None
        for message in _follow_worker(start_worker(position), end, item_seconds):
            if "ended" in message:
                failed = message
            else:
                yield message
        if failed is None:
            return
        if again < MOST_AGAIN:
            again += 1
            alone = start_worker([*failed["at"], 1])
            messages = list(_follow_worker(alone, end, min(item_seconds, AGAIN_SECONDS)))
            errors = [message["error"] for message in messages if "error" in message]
            failed["error"] += f"; alone: {errors[0] if errors else 'no error'}"
        yield failed
        position = [failed["at"][0], failed["at"][1] + 1]


def _follow_worker(worker: Any, end: float, item_seconds: float) -> Iterator[Message]:
    """The messages of one worker until the time `end`. The last one has "ended" if its item has ended the
    worker. The worker ends if its messages are not read to the last one."""
    try:
        yield from _messages_of(worker, end, item_seconds)
    except (GeneratorExit, KeyboardInterrupt):
        worker.end()
        raise


def _messages_of(worker: Any, end: float, item_seconds: float) -> Iterator[Message]:
    running: Message | None = None
    kernel, most, stop = "", item_seconds, time.monotonic() + item_seconds
    while True:
        try:
            message, reason = worker.receive(min(stop, end) - time.monotonic()), ""
        except TimeoutError:
            worker.process.kill()
            if end <= stop:
                yield {"over": True}
                return
            message, reason = None, f"no answer in {most:g} s"
        if message is None:
            reason = reason or worker.end()
            yield (
                {"broken": reason}
                if running is None
                else {**running, "error": reason + kernel, "ended": True}
            )
            return
        if "kernel" in message:
            kernel = f" in {message['kernel']}"
        elif message.get("begins"):
            running = {key: message[key] for key in ("title", "at", "name")}
            most = max(item_seconds, message.get("seconds", 0))
            kernel, stop = "", time.monotonic() + most
        elif message.get("lost"):
            worker.end()
            yield {**message, "error": message["error"] + kernel, "ended": True}
            return
        else:
            yield message
            running, stop = None, time.monotonic() + item_seconds
            if message.get("done") or message.get("broken"):
                worker.end()
                return
