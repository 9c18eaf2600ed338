"""Fetch a public dataset into the folder that data.root names.

    python -m lungdet.data.download montgomery|shenzhen|chestxray14 root=DIR [key=value]

Run again, it goes on with what is missing. Addresses and other settings: conf/download.yaml and conf/download/.
"""

import logging
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import hydra
import pooch
import requests
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lungdet.data.download.unpacking import ArchiveError, DownloadError, unpack
from lungdet.errors import plain_errors, run_program
from lungdet.machine import commands
from lungdet.machine.writing import write_text

log = logging.getLogger(__name__)

CONF = Path(__file__).parents[3] / "conf"

GROWTH = 1.04
"""Bytes that an archive of images unpacks to for one of its own: they hardly compress."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="download")
def main(config: DictConfig) -> None:
    """Fetch the dataset, or say in one line what stands in the way."""
    with plain_errors("lungdet.data.download"):
        download(config)


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
    (root / "download").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / "download" / ".lock", timeout=0):
            _Download(config, root).run()
    except Timeout as error:
        raise DownloadError(f"another download into {root} is under way") from error
    train = commands.command("train.py", f"data={config.dataset}", commands.override("data.root", root))
    log.info("%s is ready: %s", config.dataset, train)


class _Download:
    def __init__(self, config: DictConfig, root: Path) -> None:
        self.config, self.root, self.work = config, root, root / "download"

    def run(self) -> None:
        foreign = [name for name in self.config.elsewhere if (self.root / name).exists()]
        if foreign:
            raise DownloadError(
                f"{self.root} has {', '.join(foreign)}, which this command did not make: with what it fetches, images "
                "would be there twice. Move it away, or let root name another folder"
            )
        missing = {}
        for key, file in self._selected().items():
            goal = self.root / (file.get("folder") or file.name)
            if goal.exists():
                log.info("%s is there: left as it is", goal)
            else:
                missing[key] = file
        self._check_room(missing)
        for key, file in missing.items():
            path = self.work / file.name
            if not path.exists():  # nor was put there by hand
                self._fetch(path, key, file)
            checksum = self._checked(path, key, file)
            if file.get("folder"):
                self._unpack(path, file)
            else:
                path.rename(self.root / file.name)
            write_text(self._record(file), checksum)  # only now, that the file was of use, is it the one to trust

    def _selected(self) -> dict[str, DictConfig]:
        take, files = self.config.take, self.config.files
        keys = list(files) if take is None else [take] if isinstance(take, str) else list(take)
        unknown = [key for key in keys if key not in files]
        if unknown or not keys:
            raise DownloadError(f"take={','.join(unknown)}: there are {', '.join(files)}, or null for all")
        return {key: files[key] for key in keys}

    def _record(self, file: DictConfig) -> Path:
        """The checksum of the first file of this name: a later one has to be the same."""
        return self.work / f"{file.name}.checksum"

    def _check_room(self, files: dict[str, DictConfig]) -> None:
        """Refuse a disk that would be full before the end: archives go once unpacked, unless they are kept."""
        lengths = [file.bytes or 0 for file in files.values()]
        present = [path.stat().st_size for file in files.values() if (path := self.work / file.name).exists()]
        archives = sum(lengths) if self.config.keep else max(lengths, default=0)
        needed, free = GROWTH * sum(lengths) + archives - sum(present), shutil.disk_usage(self.root).free
        if needed > free:
            raise DownloadError(
                f"{self.root} needs {needed / 1e9:.2f} GB (what is fetched and what it unpacks to), its disk has "
                f"{free / 1e9:.2f} GB: make space, let root name a folder on a larger disk, or fetch less with take="
            )

    def _fetch(self, path: Path, key: str, file: DictConfig) -> None:
        # Without a checksum: pooch would fetch the gigabytes of a wrong file again, and not keep it to be looked at.
        aside, attempts = self.work / "unfinished", self.config.attempts
        shutil.rmtree(aside, ignore_errors=True)
        server = pooch.Pooch(aside, "", {file.name: None}, {file.name: file.url}, retry_if_failed=attempts - 1)
        http = pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=1 << 16, timeout=self.config.timeout)
        try:
            Path(server.fetch(file.name, downloader=http)).rename(path)
        except (requests.RequestException, ValueError) as error:
            raise DownloadError(
                f"{file.url} cannot be fetched ({error}). {self._advice(key)}, or put the file at {path} yourself"
            ) from error

    def _checked(self, path: Path, key: str, file: DictConfig) -> str:
        """The file's checksum, if it is the one that is stated or, where none is, that came first under this name."""
        record, length = self._record(file), path.stat().st_size
        if file.bytes not in (None, length):
            stated = f"{file.bytes:,} as files.{key}.bytes states (null: any)"
            self._refuse(path, f"{file.url} gave {length:,} bytes, not {stated}. {self._advice(key)}.")
        expected = (file.checksum or (record.read_text() if record.exists() else "")).lower()
        try:
            kind = expected.partition(":")[0] or "sha256"
            checksum = f"{kind}:{pooch.file_hash(path, kind)}"
        except ValueError as error:
            raise DownloadError(f"files.{key}.checksum={expected}: {error}") from error
        if expected not in ("", checksum):
            source = f"files.{key}.checksum" if file.checksum else f"{record} (delete it if there is a newer file)"
            self._refuse(path, f"{file.url} gave another file: {checksum}, not {expected} as {source} states.")
        return checksum

    def _unpack(self, path: Path, file: DictConfig) -> None:
        log.info("unpacking %s", path)
        try:
            unpack(path, self.root / file.folder, self.work / "unfinished")
        except ArchiveError as error:
            self._refuse(path, str(error))
        if not self.config.keep:
            path.unlink()

    def _refuse(self, path: Path, reason: str) -> NoReturn:
        refused = path.replace(f"{path}.refused")
        raise DownloadError(f"{reason} It is kept as {refused}; run again to fetch it anew")

    def _advice(self, key: str) -> str:
        where = f"files.{key}.url (conf/download/{self.config.dataset}.yaml)"
        return f"Addresses move: {self.config.page} leads to the present one, which belongs into {where}"


def command() -> None:
    """Run `main` with the dataset's name, which comes first, as the choice of Hydra's group."""
    if not (CONF / "download.yaml").is_file():
        sys.exit(f"{CONF} is missing: this program reads the checkout's conf/; run it there, after pip install -e .")
    if {"-m", "--multirun"} & set(sys.argv):
        sys.exit("one dataset at a time is fetched")
    names = sorted(path.stem for path in (CONF / "download").glob("*.yaml"))
    if len(set(sys.argv) & set(names)) != 1 and not any(word.startswith("download=") for word in sys.argv):
        sys.exit(f"{__doc__}\nName one dataset: {', '.join(names)}")
    sys.argv = [f"download={word}" if word in names else word for word in sys.argv]
    run_program("lungdet.data.download", main)


if __name__ == "__main__":
    command()
