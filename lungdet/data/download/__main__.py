"""Fetch a public dataset into the folder that data.root names.

    python -m lungdet.data.download montgomery|shenzhen|chestxray14 root=DIR [key=value]

Run again, it goes on where it was stopped. Addresses and other settings: conf/download.yaml and conf/download/.
"""

import errno
import logging
import shutil
import sys
from pathlib import Path

import hydra
import requests
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lungdet.data.download.checksums import Checksums
from lungdet.data.download.fetching import DownloadError, Patience, fetch, progress, size
from lungdet.data.download.listing import file_name, links
from lungdet.data.download.unpacking import KINDS, ArchiveError, unpack
from lungdet.errors import run_program
from lungdet.machine import commands

log = logging.getLogger(__name__)

CONF = Path(__file__).parents[3] / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="download")
def main(config: DictConfig) -> None:
    """Fetch the dataset, or say in one line what stands in the way."""
    try:
        download(config)
    except DownloadError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("stopped; what came is kept, run again to go on", file=sys.stderr)
        sys.exit(130)


def download(config: DictConfig) -> None:
    """Fetch, check and unpack everything that `config.take` names and that is not there yet.

    The dataset grows in `root`/download, which also holds the record of checksums; the folders that the readers look
    at appear when they are whole.

    Args:
        config: conf/download.yaml with one of conf/download/.

    Raises:
        DownloadError: a wrong setting, too little disk, an address that gives no or another file, a bad archive.
    """
    log.info("%s, from %s", config.dataset, config.page)
    log.info("terms: %s", config.terms)
    log.info("cite: %s", config.cite)
    if OmegaConf.is_missing(config, "root"):
        raise DownloadError(f"where to? root=DIR, the folder that data.root names when training on {config.dataset}")
    root = Path(config.root).expanduser()
    try:
        (root / "download").mkdir(parents=True, exist_ok=True)
        with FileLock(root / "download" / ".lock", timeout=0), requests.Session() as session:
            _Download(config, root, session).run()
    except Timeout as error:
        raise DownloadError(f"another download into {root} is under way") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DownloadError(f"{root}: no space is left; make some and run again to go on") from error
        raise DownloadError(f"{error}. root must name a folder that can be written") from error
    train = commands.command("train.py", f"data={config.dataset}", commands.override("data.root", root))
    log.info("%s is ready: %s", config.dataset, train)


class _Download:
    def __init__(self, config: DictConfig, root: Path, session: requests.Session) -> None:
        self.config, self.root, self.work, self.session = config, root, root / "download", session
        self.patience = Patience(config.attempts, config.wait, config.longest_wait, config.timeout)
        self.checksums = Checksums(self.work / "checksums.json")

    def run(self) -> None:
        files = self._taken()
        other = [name for name in self.config.elsewhere if (self.root / name).exists()]
        if other:
            raise DownloadError(
                f"{self.root} has {', '.join(other)}, which this command did not make: with what it fetches, images "
                "would be there twice. Move it away, or let root name another folder"
            )
        todo = {}
        for key, file in files.items():
            if not self._goal(file).exists():
                todo[key] = file
            elif file.get("name", file.get("into")) in self.checksums or file.get("into") in self.checksums:
                log.info("%s is there", self._goal(file))
            else:
                log.warning("%s is there, though not by this command: left as it is", self._goal(file))
        self._check_room(todo)
        for key, file in todo.items():
            (self._pages if "pages" in file else self._file)(key, file)

    def _taken(self) -> dict[str, DictConfig]:
        take, files = self.config.take, self.config.files
        take = list(files) if take is None else [take] if isinstance(take, str) else list(take)
        unknown = [key for key in take if key not in files]
        if unknown or not take:
            raise DownloadError(f"take={','.join(unknown)}: there are {', '.join(files)}, or null for all")
        return {key: files[key] for key in take}

    def _goal(self, file: DictConfig) -> Path:
        """What is there when the file is done."""
        return self.root / (file.get("into") or file.name)

    def _check_room(self, todo: dict[str, DictConfig]) -> None:
        """Refuse a disk that would be full before the end: archives go once unpacked, unless they are kept."""
        stays = peak = here = 0
        for file in todo.values():
            come, unpacked = file.bytes or 0, file.get("unpacked", 0)
            peak = max(peak, stays + come + unpacked)
            stays += (unpacked + come * bool(self.config.keep)) if unpacked else come
            begun = [self.work / file.get("name", ""), self.work / f"{file.get('name')}.part"]
            here += sum(p.stat().st_size for p in (*begun, *self._pages_folder(file).rglob("*")) if p.is_file())
        needed, free = peak - here, shutil.disk_usage(self.root).free
        if needed > free:
            raise DownloadError(
                f"{self.root} needs {size(needed)} (what is fetched and what it unpacks to), its disk has {size(free)} "
                "free: make space, let root name a folder on a larger disk, or take less of it with take="
            )
        if todo:
            log.info(
                "%d to fetch into %s: needs %s, %s is free", len(todo), self.root, size(max(needed, 0)), size(free)
            )

    def _file(self, key: str, file: DictConfig) -> None:
        path = self.work / file.name
        if not path.exists():
            with progress(file.name, file.bytes) as advance:
                self._fetch(file.url, path, f"files.{key}", file.bytes, advance)
        self.checksums.check(file.name, path, file.url, file.checksum, f"files.{key}.checksum")
        if file.get("into"):
            self._unpack(path, file, f"files.{key}")
        else:
            path.rename(self._goal(file))
        self.checksums.save()  # only now: the first use is that of a file that was of use

    def _unpack(self, path: Path, file: DictConfig, setting: str) -> None:
        if not file.name.endswith(KINDS):
            raise DownloadError(f"{setting}.name={file.name}: an archive's name ends in {', '.join(KINDS)}")
        log.info("unpacking %s", path)
        try:
            count = unpack(path, self._goal(file), self.work / f"{file.into}.unpacking", file.get("top"))
        except ArchiveError as error:
            refused = path.replace(path.with_name(f"{path.name}.refused"))
            raise DownloadError(f"{error} It is kept as {refused}; run again to fetch it anew") from error
        log.info("%s has %s files", self._goal(file), f"{count:,}")
        if not self.config.keep:
            path.unlink()

    def _pages(self, key: str, file: DictConfig) -> None:
        folder = self._pages_folder(file)
        addresses = {}
        for name, page in file.pages.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for url in self._listed(page, f"files.{key}.pages.{name}"):
                addresses[f"{name}/{file_name(url)}"] = url
        log.info("%s files are listed", f"{len(addresses):,}")
        with progress(file.into, file.bytes) as advance:
            for name, url in addresses.items():
                path = folder / name
                if path.exists():
                    advance(path.stat().st_size)
                else:
                    self._fetch(url, path, f"files.{key}.pages.{path.parent.name}", None, advance)
        for name, url in addresses.items():
            self.checksums.check(f"{file.into}/{name}", folder / name, url)
        self.checksums.save()
        folder.rename(self._goal(file))
        log.info("%s has %s files", self._goal(file), f"{len(addresses):,}")

    def _pages_folder(self, file: DictConfig) -> Path:
        return self.work / f"{file.get('into')}.pages"

    def _listed(self, page: DictConfig, setting: str) -> list[str]:
        """The addresses of the files beside a page that it links to."""
        path = self.work / "listing.html"
        path.unlink(missing_ok=True)
        self._fetch(page.url, path, setting)
        urls = links(path.read_text(encoding="utf-8", errors="replace"), page.url, page.ends)
        path.unlink()
        if not urls or page.files not in (None, len(urls)):
            raise DownloadError(
                f"{page.url} lists {len(urls)} files *{page.ends}, expected are {page.files or 'some'}. "
                f"{setting}.files=null takes what there is. {self._advice(setting)}"
            )
        return urls

    def _fetch(self, url: str, path: Path, setting: str, length: int | None = None, advance=lambda count: None) -> None:
        by_hand = f", or put the file at {path} yourself" if length else ""
        fetch(self.session, url, path, self.patience, length, self._advice(setting) + by_hand, advance)

    def _advice(self, setting: str) -> str:
        where = f"conf/download/{self.config.dataset}.yaml"
        return (
            f"Addresses move: {self.config.page} leads to the present one, which belongs into {setting}.url ({where})"
        )


def command() -> None:
    """Run `main` with the dataset's name, which comes first, as the choice of Hydra's group."""
    if not (CONF / "download.yaml").is_file():
        sys.exit(f"{CONF} is missing: this program reads the checkout's conf/; run it there, after pip install -e .")
    if {"-m", "--multirun"} & set(sys.argv):
        sys.exit("one dataset at a time is fetched")
    names = sorted(path.stem for path in (CONF / "download").glob("*.yaml"))
    named = [argument for argument in sys.argv[1:] if argument in names]
    if len(named) != 1 and not any(argument.startswith("download=") for argument in sys.argv):
        sys.exit(f"{__doc__}\nName one dataset: {', '.join(names)}")
    sys.argv = [f"download={argument}" if argument in names else argument for argument in sys.argv]
    run_program("lungdet.data.download", main)


if __name__ == "__main__":
    command()
