"""Archives of frameworks: their members, checked before a framework reads them."""

from __future__ import annotations

import os
import zipfile

from ovjit.errors import ModelError, unless_of_signal

#: Bytes that members may have in excess of twice the size of their archive.
_EXCESS = 256 << 20
_PIECE = 1 << 20


def members_of(path: str) -> list[str]:
    """The names of an archive's members. ModelError if its table of them is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (ValueError, NotImplementedError, zipfile.BadZipFile) as error:  # names that are no text, too
        raise ModelError(f"{path} is a damaged archive: {error}") from error


def check_archive(path: str) -> None:
    """Raise ModelError if a member has another checksum than the archive notes, or if members are compressed
    too much. Not all frameworks ask for that."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(m.file_size for m in members) > 2 * os.path.getsize(path) + _EXCESS:
            raise ModelError(f"{path} is refused: its members would take more than twice its size")
        for member in members:
            try:
                with archive.open(member) as file:
                    while file.read(_PIECE):
                        pass
            except unless_of_signal(Exception) as error:  # zlib and others have classes of their own
                raise ModelError(f"{path} is damaged: {member.filename!r}: {error}") from error
