"""Archives unpacked whole or not at all, and nothing outside the folder they are for."""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple

from lungdet.data.download.fetching import DownloadError, size

KINDS = (".zip", ".tar.gz", ".tgz")
"""The ends of the names of archives."""


class ArchiveError(DownloadError):
    """An archive that must not or cannot be unpacked, whatever the settings."""


def unpack(archive: Path, target: Path, aside: Path, top: str | None = None) -> int:
    """Unpack into `aside`, then rename that to `target`: it appears when every member is in it.

    A member that is no plain file or folder (a link, a device), or whose name leads out of the folder, spoils the
    whole archive. Modes, owners and times are not taken over.

    Args:
        archive: a zip or a gzipped tar file, told apart by the name.
        target: the folder to make; does not exist.
        aside: where it grows, on the same disk; what an earlier, interrupted call left there is thrown away.
        top: the archive's folder that becomes `target`, where it holds others that nobody wants; None takes all.

    Returns:
        The number of files.

    Raises:
        ArchiveError: a member is not allowed, or the archive is damaged. Nothing is left of what was unpacked.
        DownloadError: too little disk, or no such top folder. Likewise.
    """
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    try:
        _extract(archive, aside)
        whole = aside / top if top else aside
        if not whole.is_dir():
            there = ", ".join(sorted(path.name for path in aside.iterdir())) or "nothing"
            raise DownloadError(f"{archive}: there is no folder {top} in it, but {there}; change `top`")
        count = sum(path.is_file() for path in whole.rglob("*"))
        whole.rename(target)
        return count
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class _Member(NamedTuple):
    name: str
    folder: bool
    plain: bool
    """Neither link nor device, nor encrypted."""
    open: Callable[[], IO[bytes]]


def _extract(archive: Path, folder: Path) -> None:
    members = _zip_members if archive.name.endswith(".zip") else _tar_members
    name = ""
    try:
        for member in members(archive):
            name = member.name
            path = folder.joinpath(*_parts(archive, member))
            if member.folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, open(path, "xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"{archive}: {name} is in it twice, or as a file and a folder.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ArchiveError(f"{archive} is damaged, after {name or 'nothing'} ({error}).") from error


def _parts(archive: Path, member: _Member) -> tuple[str, ...]:
    """The folders and the name of a member, if it is allowed."""
    # Read as Windows would, which knows both slashes, drives and the names it reserves.
    path = PureWindowsPath(member.name)
    if not member.plain or path.anchor or ".." in path.parts or "\0" in member.name:
        why = "leads out of the folder" if member.plain else "is a link, a device or encrypted"
        raise ArchiveError(f"{archive}: {member.name!r} {why}; nothing was unpacked. Is this the publisher's archive?")
    return path.parts


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        needed, free = sum(info.file_size for info in opened.infolist()), shutil.disk_usage(archive.parent).free
        if needed > free:
            raise DownloadError(f"{archive} unpacks to {size(needed)}, {archive.parent} has {size(free)} free")
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not info.flag_bits & 1
            # `info` is bound now: the caller may open it after the next one was asked for.
            yield _Member(info.orig_filename, info.is_dir(), plain, lambda info=info: opened.open(info))


def _tar_members(archive: Path) -> Iterator[_Member]:
    with gzip.open(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as opened:
            for info in opened:
                yield _Member(
                    info.name, info.isdir(), info.isreg() or info.isdir(), lambda i=info: opened.extractfile(i)
                )
        # tarfile stops at the end it finds; the checksum of it all comes after.
        while stream.read(1 << 20):
            pass
