"""Records that other packages log while they convert."""

from __future__ import annotations

import logging
import threading

from ovjit.readers.logs import drop_records


def test_records_of_other_threads_stay(caplog) -> None:
    """The caller's records are dropped where `drops` holds, those of another thread never."""
    loggers = ("", "tests.logs")

    def log(text: str) -> None:
        for name in loggers:
            logging.getLogger(name).warning(text)

    with drop_records(loggers, lambda record: "redundant" in record.getMessage()):
        log("redundant")
        log("new")
        thread = threading.Thread(target=log, args=("redundant of another",))
        thread.start()
        thread.join()
    log("redundant after")
    assert [record.getMessage() for record in caplog.records] == [
        text for text in ("new", "redundant of another", "redundant after") for _ in loggers
    ]
