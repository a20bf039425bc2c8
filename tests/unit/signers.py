# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who signs things in tests: keys of GnuPG and of SSH that are made for them."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import subprocess
import tempfile
import typing as t


class Keys:
    """A GnuPG of the test's own, with keys that are made as they are asked for."""

    def __init__(self, home: pathlib.Path, directory: pathlib.Path) -> None:
        self.home = home
        self.directory = directory
        self.numbers = itertools.count()

    def gpg(self, *arguments: str | pathlib.Path, at: str = "", stdin: str = "") -> str:
        time_of = ["--faked-system-time", at] if at else []
        options = ["--homedir", self.home, "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]
        argv = list(map(str, ["gpg", *options, *time_of, *arguments]))
        return subprocess.run(argv, check=True, capture_output=True, text=True, input=stdin, timeout=60).stdout

    def make(self, name: str, *, expires: str = "never", at: str = "") -> str:
        self.gpg("--quick-generate-key", name, "ed25519", "sign", expires, at=at)
        lines = self.gpg("--with-colons", "--list-keys", f"={name}").splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr"))

    def public(self, name: str, *, armor: bool = True, secret: bool = False) -> str:
        path = self.directory / f"{name}-{armor}-{secret}"
        export = "--export-secret-keys" if secret else "--export"
        self.gpg(*(["--armor"] if armor else []), "--output", path, export, f"={name}")
        return str(path)

    def sign(self, name: str, path: pathlib.Path, *how: str, at: str = "") -> pathlib.Path:
        """A signature of a file; detached if nothing else is asked for."""
        made = self.directory / f"{path.name}.{name}.{next(self.numbers)}.asc"
        self.gpg("--local-user", f"={name}", "--output", made, *(how or ("--armor", "--detach-sign")), path, at=at)
        return made

    def revoke(self, fingerprint: str) -> None:
        revocation = self.home / "openpgp-revocs.d" / f"{fingerprint}.rev"
        self.gpg("--import", stdin=revocation.read_text().replace(":-----BEGIN", "-----BEGIN"))


@contextlib.contextmanager
def keyring(directory: pathlib.Path) -> t.Iterator[Keys]:
    """A GnuPG without keys; what it writes comes into a directory."""
    with tempfile.TemporaryDirectory(prefix="gpg", dir="/tmp") as home:  # a socket's path must be short
        try:
            yield Keys(pathlib.Path(home), directory)
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


def ssh_keys(directory: pathlib.Path, *names: str) -> dict[str, pathlib.Path]:
    """Private keys of SSH, by name."""
    for name in names:
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)]
        subprocess.run(argv, check=True)
    return {name: directory / name for name in names}
