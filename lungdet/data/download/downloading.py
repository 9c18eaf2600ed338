"""A public dataset is fetched, checked and unpacked into the folder that data.root names."""

import logging
import shutil
import sys
from pathlib import Path

import pooch
import requests
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lungdet.data.download.unpacking import DownloadError, UntrustedError, unpack
from lungdet.machine import commands
from lungdet.machine.writing import require_writable, write_text

log = logging.getLogger(__name__)


def download(config: DictConfig) -> None:
    """Fetch, check and unpack everything that `config.take` names and that is not there yet.

    The dataset grows in `root`/download; the files and folders that the readers look at appear when they are whole.

    Raises:
        DownloadError: a wrong setting, too little disk, an address that gives no or another file, a bad archive.
    """
    log.info("%s, from %s\nterms: %s\ncite: %s", config.dataset, config.page, config.terms, config.cite)
    if OmegaConf.is_missing(config, "root"):
        raise DownloadError(f"where to? root=DIR, the folder that data.root names when training on {config.dataset}")
    root = Path(config.root).expanduser()
    require_writable("root", root)
    (root / "download").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / "download" / ".lock", timeout=0):
            missing = _missing(config, root)
            _check_disk(root, missing, config.keep)
            for file in missing:
                file.obtain()
    except Timeout as error:
        raise DownloadError(f"another download into {root} is under way") from error
    train = commands.command("train.py", f"data={config.dataset}", commands.override("data.root", root))
    log.info("%s is ready: %s", config.dataset, train)


def _missing(config: DictConfig, root: Path) -> "list[_File]":
    foreign = [name for name in config.elsewhere if (root / name).exists()]
    if foreign:
        raise DownloadError(
            f"{root} has {', '.join(foreign)}, which this command did not make: with what it fetches, images would be "
            "there twice. Move it away, or let root name another folder"
        )
    take = list(config.files) if config.take is None else [config.take] if isinstance(config.take, str) else config.take
    if not take or not set(take) <= set(config.files):
        raise DownloadError(f"take={','.join(take)}: there are {', '.join(config.files)}, or null for all")
    files = [_File(config, root, key) for key in take]
    for file in files:
        if file.goal.exists():
            log.info("%s is there: left as it is", file.goal)
    return [file for file in files if not file.goal.exists()]


def _check_disk(root: Path, files: "list[_File]", keep: bool) -> None:
    """Refuse a disk that would be full before the end: archives go once unpacked, unless they are kept."""
    lengths = [file.stated.bytes or 0 for file in files]
    archives = sum(lengths) if keep else max(lengths, default=0)
    present = sum(file.path.stat().st_size for file in files if file.path.exists())
    needed = 1.04 * sum(lengths) + archives - present  # images hardly compress
    if needed > (free := shutil.disk_usage(root).free):
        raise DownloadError(
            f"{root} needs {needed / 1e9:.2f} GB (what is fetched and what it unpacks to), its disk has "
            f"{free / 1e9:.2f} GB: make space, let root name a folder on a larger disk, or fetch less with take="
        )


class _File:
    """A file that conf/download/ states: `path` is where it arrives, `goal` where it is read, or what it unpacks to."""

    def __init__(self, config: DictConfig, root: Path, key: str) -> None:
        self.config, self.key, self.stated = config, key, config.files[key]
        self.folder = self.stated.get("folder")
        self.path, self.goal = root / "download" / self.stated.name, root / (self.folder or self.stated.name)
        self.advice = (
            f"Addresses move: {config.page} leads to the present one, which belongs into files.{key}.url "
            f"(conf/download/{config.dataset}.yaml)"
        )

    def obtain(self) -> None:
        aside, record = self.path.with_name("unfinished"), self.path.with_name(f"{self.path.name}.checksum")
        if not self.path.exists():  # nor was put there by hand
            self._fetch(aside)
        try:
            checksum = self._check(record)
            if self.folder:
                log.info("unpacking %s", self.path)
                unpack(self.path, self.goal, aside)
        except UntrustedError as error:
            refused = self.path.replace(f"{self.path}.refused")
            raise DownloadError(f"{error} It is kept as {refused}; run again to fetch it anew") from error
        if not self.folder:
            self.path.rename(self.goal)
        elif not self.config.keep:
            self.path.unlink()
        write_text(record, checksum)  # only now, that the file was of use, is it the one to trust

    def _fetch(self, aside: Path) -> None:
        # Without a checksum: pooch would fetch the gigabytes of a wrong file again, and not keep it to be looked at.
        shutil.rmtree(aside, ignore_errors=True)
        registry, urls = {self.path.name: None}, {self.path.name: self.stated.url}
        server = pooch.Pooch(aside, "", registry, urls, retry_if_failed=self.config.attempts - 1)
        http = pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=1 << 16, timeout=self.config.timeout)
        try:
            Path(server.fetch(self.path.name, downloader=http)).rename(self.path)
        except (requests.RequestException, ValueError) as error:
            advice = f"{self.advice}, or put the file at {self.path} yourself"
            raise DownloadError(f"{self.stated.url} cannot be fetched ({error}). {advice}") from error

    def _check(self, record: Path) -> str:
        """The checksum of a file that is as stated or, where no checksum is, as the first of its name, in `record`."""
        key, url, length = f"files.{self.key}", self.stated.url, self.path.stat().st_size
        if self.stated.bytes not in (None, length):
            stated = f"{self.stated.bytes:,} as {key}.bytes states (null: any)"
            raise UntrustedError(f"{url} gave {length:,} bytes, not {stated}. {self.advice}.")
        expected = (self.stated.checksum or (record.read_text() if record.exists() else "")).lower()
        algorithm = expected.partition(":")[0] or "sha256"
        try:
            checksum = f"{algorithm}:{pooch.file_hash(self.path, algorithm)}"
        except ValueError as error:
            raise DownloadError(f"{key}.checksum={expected}: {error}") from error
        if expected not in ("", checksum):
            source = f"{key}.checksum" if self.stated.checksum else f"{record} (delete it if there is a newer file)"
            raise UntrustedError(f"{url} gave another file: {checksum}, not {expected} as {source} states.")
        return checksum
