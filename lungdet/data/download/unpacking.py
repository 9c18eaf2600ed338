"""Archives unpacked whole or not at all, and nothing outside the folder they are for."""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PureWindowsPath

from lungdet.errors import InputError


class DownloadError(InputError):
    """Something that cannot be fetched, trusted or unpacked; the message says what to do."""


class UntrustedError(DownloadError):
    """A file that is not the publisher's, is damaged, or would write where it must not: it is not used."""


def unpack(archive: Path, target: Path, aside: Path) -> None:
    """Unpack a zip or a tar.gz into `aside`, then rename to `target`: it appears when every member is in it.

    Where the archive has a folder of the target's name, that alone becomes the target. Modes, owners and times are not
    taken over. What an interrupted call left in `aside`, on the same disk, is thrown away.

    Raises:
        UntrustedError: a member is a link or a device, or leads out of the folder, or the archive is damaged.
        DownloadError: too little disk. Nothing is left of what was unpacked, here as there.
    """
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    name, needed, free = "nothing", 0, shutil.disk_usage(aside).free
    try:
        with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive, "r:gz") as opened:
            for name, plain, size, content in _members(opened):
                # Read as Windows would, which knows both slashes, drives and the names it reserves.
                path = PureWindowsPath(name)
                if not plain or path.anchor or ".." in path.parts or "\0" in name:
                    reason = "leads out of the folder" if plain else "is a link, a device or encrypted"
                    raise UntrustedError(f"{archive}: {name!r} {reason}. Is this the publisher's archive?")
                needed += size
                if needed > free:
                    raise DownloadError(
                        f"{archive} unpacks to {needed / 1e9:.2f} GB or more, {free / 1e9:.2f} GB are free"
                    )
                place = aside.joinpath(*path.parts)
                (place.parent if content else place).mkdir(parents=True, exist_ok=True)
                if content:
                    with content() as source, open(place, "xb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
        (aside / target.name if (aside / target.name).is_dir() else aside).rename(target)
    except (FileExistsError, NotADirectoryError) as error:
        raise UntrustedError(f"{archive}: {name} is in it twice, or as a file and a folder.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UntrustedError(f"{archive} is damaged, or no zip or tar.gz, after {name} ({error}).") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[tuple[str, bool, int, Callable | None]]:
    """Of each member its name, whether it is no link, device or cipher, its bytes, and what opens it but a folder."""
    if isinstance(archive, zipfile.ZipFile):
        for info in archive.infolist():
            plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR) and not info.flag_bits & 1
            content = None if info.is_dir() else partial(archive.open, info)
            yield info.orig_filename, plain, info.file_size, content
        return
    for info in archive:
        content = None if info.isdir() else partial(archive.extractfile, info)
        yield info.name, info.isreg() or info.isdir(), info.size, content
    while archive.fileobj.read(1 << 20):  # tarfile stops at the end it finds; the checksum of it all comes after
        pass
