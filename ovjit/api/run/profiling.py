"""`ProfilingInfo`: what one layer took in the last inference."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

from ovjit.api.run.property_values import _Choice


class Status(_Choice):
    """Whether a layer ran."""

    NOT_RUN, OPTIMIZED_OUT, EXECUTED = range(3)


class ProfilingInfo:
    """Name, operation, implementation, state and times of one layer; times are `timedelta`s."""

    __slots__ = ("cpu_time", "exec_type", "node_name", "node_type", "real_time", "status")
    Status: ClassVar[type[Status]] = Status
    NOT_RUN = Status.NOT_RUN
    OPTIMIZED_OUT = Status.OPTIMIZED_OUT
    EXECUTED = Status.EXECUTED

    def __init__(self) -> None:
        self.node_name = self.node_type = self.exec_type = ""
        self.status = Status.NOT_RUN
        self.real_time = self.cpu_time = timedelta()

    def __repr__(self) -> str:
        return (
            f"<ProfilingInfo: {self.node_name!r} {self.node_type} {self.exec_type} {self.status.name} "
            f"{self.real_time.total_seconds() * 1e6:.0f} us>"
        )


def profiling_infos(rows: Sequence[Any]) -> list[ProfilingInfo]:
    """Names for the rows of a job's profile. Of several rows with an operation's name, those that compute
    keep it, and rows that only move elements for them get their own. So a search by an operation's name finds
    it."""
    computing = {row.name for row in rows if row.node_type != "Reorder"}
    infos = [profiling_info(row) for row in rows]
    for info in infos:
        if info.node_type == "Reorder" and info.node_name in computing:
            info.node_name += "/reorder"
    return infos


def profiling_info(row: Any) -> ProfilingInfo:
    """The ProfilingInfo of a row of a job's profile, whose times are in ns."""
    info = ProfilingInfo()
    info.node_name, info.node_type, info.exec_type = row.name, row.node_type, row.exec_type
    info.status = Status[row.status]
    info.real_time = timedelta(microseconds=row.real_ns / 1000)
    info.cpu_time = timedelta(microseconds=row.cpu_ns / 1000)
    return info
