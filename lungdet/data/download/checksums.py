"""What each downloaded file was when it first came: a later, different one does not pass for it."""

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path

from lungdet.data.download.fetching import DownloadError
from lungdet.machine.writing import write_text


class Checksums:
    """A json file of names, each with the SHA-256 and the length of the file, its address and the day it came.

    Args:
        file: read if it is there; written by `save`.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self.entries: dict[str, dict] = json.loads(file.read_text()) if file.exists() else {}
        except ValueError as error:
            raise DownloadError(f"{file} is no json ({error}); delete it to trust the files as they come") from error

    def check(self, name: str, path: Path, url: str, stated: str | None = None, setting: str = "") -> None:
        """Pass if the file is the one that was stated or, where nothing is stated, that came first under this name.

        The first is taken down. A file that does not pass is renamed to `<name>.refused`.

        Args:
            name: what the file is called in the record.
            path: the file.
            url: where it came from.
            stated: the publisher's checksum, "md5:.." or "sha256:..".
            setting: the key that states it, for the message.

        Raises:
            DownloadError: it is another file, or nobody can tell because `stated` is of no known kind.
        """
        kind, _, expected = (stated or "sha256:").partition(":")
        if kind not in ("md5", "sha256") or (stated and not expected):
            raise DownloadError(f"{setting}={stated}: a checksum is md5:.. or sha256:.., or null")
        known = self.entries.get(name)
        sums = {k: _digest(path, k) for k in {kind, "sha256"}}
        if stated and sums[kind] != expected.lower():
            raise self._refusal(path, url, f"{kind} {sums[kind]}, not {expected} as {setting} states")
        if not stated and known and known["sha256"] != sums["sha256"]:
            came = f"sha256 {sums['sha256']}, not {known['sha256']} as on {known['first']}"
            raise self._refusal(path, url, f"{came}; if there is a newer one, delete its entry in {self.file}")
        if not known or known["sha256"] != sums["sha256"]:
            today = datetime.now(timezone.utc).date().isoformat()  # noqa: UP017
            self.entries[name] = {"sha256": sums["sha256"], "bytes": path.stat().st_size, "url": url, "first": today}

    def __contains__(self, name: str) -> bool:
        """True if this file, or a file of this folder, came by this command."""
        return any(entry == name or entry.startswith(f"{name}/") for entry in self.entries)

    def save(self) -> None:
        """Write the record, whole or not at all."""
        write_text(self.file, json.dumps(self.entries, indent=1, sort_keys=True) + "\n")

    def _refusal(self, path: Path, url: str, why: str) -> DownloadError:
        refused = path.replace(path.with_name(f"{path.name}.refused"))
        return DownloadError(
            f"{url} gave another file than expected: {why}. It is kept as {refused}; run again to retry"
        )


def _digest(path: Path, kind: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
