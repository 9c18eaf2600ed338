"""A public dataset is fetched, checked and unpacked into the folder that data.root names."""

import logging
import shutil
import sys
from pathlib import Path

import pooch
import requests
from omegaconf import DictConfig, OmegaConf

from lungdet.data.download.unpacking import unpack
from lungdet.errors import InputError
from lungdet.machine.commands import command, override
from lungdet.machine.locking import alone
from lungdet.machine.writing import write_text

log = logging.getLogger(__name__)


def download(config: DictConfig) -> None:
    """Fetch, check and unpack everything that `config.take` names and that is not there yet.

    The dataset grows in `root`/download; the files and folders that the readers look at appear when they are whole.

    Raises:
        InputError: a wrong setting, too little disk, an address that gives no or another file, a bad archive.
    """
    log.info("%s, from %s\nterms: %s\ncite: %s", config.dataset, config.page, config.terms, config.cite)
    if OmegaConf.is_missing(config, "root"):
        raise InputError(f"where to? root=DIR, the folder that data.root names when training on {config.dataset}")
    root = Path(config.root).expanduser()
    with alone(root, root / "download" / ".lock", key="root"):
        unfinished = root / "download" / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)  # what a killed download left
        try:
            for key in _missing(config, root):
                _obtain(config, root, key)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    log.info("ready: %s", command("train.py", f"data={config.dataset}", override("data.root", root)))


def _missing(config: DictConfig, root: Path) -> list[str]:
    """Which files to obtain, if the folder has no images of another origin, and its disk has room for them."""
    if foreign := [name for name in config.elsewhere if (root / name).exists()]:
        raise InputError(f"{root} has {foreign[0]}: images would be there twice; move it, or name another root")
    take = config.take if OmegaConf.is_list(config.take) else [config.take]
    if not take or not {*take} <= {*config.files}:
        raise InputError(f"take={config.take}: there are {', '.join(config.files)}")
    goals = {key: root / file.get("folder", file.name) for key, file in config.files.items() if key in take}
    for goal in filter(Path.exists, goals.values()):
        log.info("%s is there: left as it is", goal)
    missing = [key for key, goal in goals.items() if not goal.exists()]
    sizes = [(config.files[key].bytes or 0) / 1e9 for key in missing]
    arrived = filter(Path.exists, (root / "download" / config.files[key].name for key in missing))
    # An archive goes once it is unpacked, and images hardly compress.
    needed = 1.04 * sum(sizes) + max(sizes, default=0) - sum(path.stat().st_size for path in arrived) / 1e9
    if needed > (free := shutil.disk_usage(root).free / 1e9):
        raise InputError(f"{root} needs {needed:.2f} GB, its disk has {free:.2f} GB: another root, or less with take=")
    return missing


def _obtain(config: DictConfig, root: Path, key: str) -> None:
    """Fetch, check and unpack a file, which arrives in `root`/download and leaves it when it is of use."""
    stated, folder = config.files[key], root / "download"
    path, record, aside = folder / stated.name, folder / f"{stated.name}.checksum", folder / "unfinished"
    advice = f"Addresses move: see {config.page} and give files.{key}.url=ADDRESS, or put the file at {path} yourself"
    try:
        if not path.exists():  # nor was put there by hand
            # Without a checksum: pooch would fetch a wrong file's gigabytes again, and not keep them to be looked at.
            server = pooch.Pooch(aside, "", {path.name: None}, {path.name: stated.url}, retry_if_failed=3)
            http = pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=1 << 16, timeout=60)  # seconds without a byte
            Path(server.fetch(path.name, downloader=http)).rename(path)
        checksum = _checksum(path, stated, record)
        if "folder" in stated:
            log.info("unpacking %s", path)
            unpack(path, root / stated.folder, aside)
            path.unlink()
        else:
            path.rename(root / stated.name)
    except InputError as error:
        refused = path.replace(f"{path}.refused")
        raise InputError(f"files.{key}: {stated.url} gave {error}; kept as {refused}. Run again. {advice}") from error
    except (requests.RequestException, ValueError) as error:
        raise InputError(f"files.{key}: {stated.url} cannot be fetched and checked ({error}). {advice}") from error
    except OSError as error:  # the system does not say which disk is full
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(folder)) from error
    write_text(record, checksum)  # only now, that the file was of use, is it the one to trust


def _checksum(path: Path, stated: DictConfig, record: Path) -> str:
    """The checksum of a file that is as stated or, where no checksum is, as the first of its name, in `record`."""
    if stated.bytes not in (None, path.stat().st_size):
        raise InputError(f"{path.stat().st_size:,} bytes, not {stated.bytes:,} as `bytes` states (null: any)")
    expected = (stated.checksum or (record.read_text() if record.exists() else "")).lower()
    algorithm = expected.partition(":")[0] or "sha256"
    checksum = f"{algorithm}:{pooch.file_hash(path, algorithm)}"
    if expected not in ("", checksum):
        source = "`checksum`" if stated.checksum else f"{record} (delete it if there is a newer file)"
        raise InputError(f"{checksum}, not {expected} as {source} states")
    return checksum
