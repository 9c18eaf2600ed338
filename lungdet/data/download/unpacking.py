"""Archives unpacked whole or not at all, and nothing outside the folder they are for."""

import errno
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import IO

from lungdet.errors import InputError, mistake


def unpack(archive: Path, target: Path, aside: Path) -> None:
    """Unpack a zip or a tar.gz into `aside`, on the same disk, then rename to `target`: it appears when it is whole.

    A folder of the target's name alone becomes the target, if there is one. No modes, owners and times are taken over.

    Raises:
        InputError: a member is a link or a device, is there twice or leads out of the folder; or a damaged archive.
        OSError: the disk is full, or is too small for it. Nothing is left of what was unpacked, here as there.
    """
    try:
        _require_room(archive, aside.parent)
        for name, plain, content in _members(archive):
            path = PureWindowsPath(name)  # knows both slashes, and drives
            if not plain or path.anchor or ".." in path.parts:
                raise InputError(f"{name!r}, which {'leads out of the folder' if plain else 'is a link or a device'}")
            place = aside.joinpath(*path.parts)
            (place.parent if content else place).mkdir(parents=True, exist_ok=True)
            if content:
                with content, open(place, "xb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
        (aside / target.name if (aside / target.name).is_dir() else aside).rename(target)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{name!r} twice, or as a file and a folder") from error
    except Exception as error:  # of a damaged archive a dozen kinds come from as many libraries
        if mistake(error):
            raise
        raise InputError(f"what is damaged, encrypted, or no zip or tar.gz ({error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _require_room(archive: Path, folder: Path) -> None:
    """Refuse what the disk cannot hold: a zip says how much that is, a gzip what is left of it by steps of 4 GiB."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            size = sum(info.file_size for info in opened.infolist())
    else:
        with archive.open("rb") as file:
            gzip = file.read(2) == b"\x1f\x8b"
            file.seek(-4, 2)
            size = int.from_bytes(file.read(), "little") if gzip else 0
    if size > (free := shutil.disk_usage(folder).free):
        reason = f"unpacked it takes at least {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free"
        raise OSError(errno.ENOSPC, reason, str(archive))


def _members(archive: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    """Of each member its name, whether it is a file or a folder, and a file's content."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
                yield info.orig_filename, plain, None if info.is_dir() else opened.open(info)
        return
    with tarfile.open(archive, "r:gz") as opened:
        for info in opened:
            yield info.name, info.isreg() or info.isdir(), opened.extractfile(info) if info.isreg() else None
        while rest := opened.fileobj.read(1 << 20):  # the end may be a broken member's; the checksum of all comes last
            if rest.strip(b"\0"):
                raise tarfile.ReadError("there is more after a member that cannot be read")
