# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A release mirror with real programs, taken from Debian's packages and laid out as their GitHub releases are.

Debian builds what upstream released, so the programs are real; of the releases only the wrapping is made here. Beside
them lie releases that are bad in one way each (see STAND_INS), and releases of programs that Debian hasn't (see
SERVICES): for these, and only for these, a stand-in is compiled.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pathlib
import re
import shutil
import socket
import subprocess
import tarfile
import time
import typing as t
import urllib.request
import zipfile

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ("bookworm", "trixie", "forky")
HERE = pathlib.Path(__file__).parent


class Project(t.NamedTuple):
    """Where upstream releases a program, and where Debian has it."""

    repository: str
    name: str
    packages: tuple[str, ...]
    files: dict[str, str]
    directories: tuple[str, ...] = ()
    flat: bool = False


PROJECTS = (
    Project(
        "prometheus/prometheus",
        "prometheus",
        ("prometheus", "promtool"),
        {"prometheus": "prometheus", "promtool": "promtool"},
        ("consoles", "console_libraries"),
    ),
    Project(
        "prometheus/alertmanager",
        "alertmanager",
        ("prometheus-alertmanager",),
        {"alertmanager": "prometheus-alertmanager", "amtool": "amtool"},
    ),
    *(
        Project(f"prometheus/{name}", name, (package,), {name: package})
        for name, package in (
            ("node_exporter", "prometheus-node-exporter"),
            ("blackbox_exporter", "prometheus-blackbox-exporter"),
            ("mysqld_exporter", "prometheus-mysqld-exporter"),
            ("pushgateway", "prometheus-pushgateway"),
        )
    ),
    Project(
        "nginx/nginx-prometheus-exporter",
        "nginx-prometheus-exporter",
        ("prometheus-nginx-exporter",),
        {"nginx-prometheus-exporter": "prometheus-nginx-exporter"},
        flat=True,
    ),
)

# The stand-ins: what each is compiled to do, beside what the release's name promises.
STAND_INS: dict[str, dict[str, dict[str, t.Any]]] = {
    "node_exporter": {
        "1.99.1": {"LIVES": 0},  # dies at start
        "1.99.2": {"LISTENS": 0},  # runs, and never listens
        "1.99.3": {"LIVES": 8},  # answers, and dies 8 seconds later
        "1.99.4": {"VERSION": "1.98.0"},  # its --version isn't what its name says
        "1.99.5": {},  # its checksum is wrong
        "1.99.6": {},  # its archive is cut short
        "1.99.7": {},  # an archive with a name that climbs out
        "1.99.8": {},  # one with an absolute name
        "1.99.9": {},  # one whose member is a link
        "1.99.10": {},  # one whose member is a device
        "1.99.11": {},  # one without the member
        "1.99.12": {},  # all is well with this one
        "1.99.13": {"SERVES": "1.5.0"},  # its metrics tell another version
        "1.99.14": {"METRICS": 10},  # it exports a tenth of the metrics, and all else is well
        "1.99.15": {"LIVES": 2},  # a crash loop that looks active whenever one looks
        "1.99.16": {"TAKEN": 1},  # another process has just taken its port
        "1.99.17": {"LACKS": "collector.textfile.directory"},  # it has no such flag any more
        "1.98.1": {"SOURCE": "escape.c"},  # it tries to get out of its sandbox
        "1.98.2": {"CANARY": 1},  # all is well with this one, but it tells who runs it
        "1.99.18": {"DRIPS": 1},  # it answers with a header that never ends, and ignores SIGTERM
    },
    "prometheus": {"3.99.1": {"LIVES": 0}},
}


class Service(t.NamedTuple):
    """A program that Debian hasn't: a stand-in is compiled, and laid out as upstream's releases are.

    :ivar versions: what each version is compiled to do, besides what its name promises.
    :ivar archives: the archive's path, where one version's isn't as all others' are; without a suffix, the program.
    :ivar checksums: the name of the list of checksums, beside it.
    :ivar member: the program's name in the archive.
    """

    name: str
    versions: dict[str, dict[str, str]]
    archives: dict[str, str]
    checksums: str
    member: str


SERVICES = (
    Service(
        "loki",
        {"2.8.11": {}, "2.9.17": {}, "3.6.3": {"REFUSES": "shared_store", "LACKS": "ingester.max-transfer-retries"}},
        {"*": "grafana/loki/releases/download/v{version}/loki-linux-{arch}.zip"},
        "SHA256SUMS",
        "loki-linux-{arch}",
    ),
    Service(
        "promtail",
        {"2.9.17": {}, "3.6.3": {"REFUSES": "refused_by_3"}},
        {"*": "grafana/loki/releases/download/v{version}/promtail-linux-{arch}.zip"},
        "SHA256SUMS",
        "promtail-linux-{arch}",
    ),
    Service(
        "php-fpm_exporter",
        {"2.1.0": {}, "2.2.0": {}},
        {
            "*": "hipages/php-fpm_exporter/releases/download/v{version}/php-fpm_exporter_{version}_linux_{arch}.tar.gz",
            "2.1.0": "hipages/php-fpm_exporter/releases/download/v{version}/php-fpm_exporter_{version}_linux_{arch}",
        },
        "php-fpm_exporter_{version}_checksums.txt",
        "php-fpm_exporter",
    ),
    Service(
        "fail2ban_exporter",
        {"0.9.0": {}, "0.10.3": {}},
        {
            "*": "hectorjsmith/fail2ban-prometheus-exporter/-/releases/v{version}/downloads/"
            "fail2ban_exporter_{version}_linux_{arch}.tar.gz"
        },
        "fail2ban_exporter_{version}_checksums.txt",
        "fail2ban_exporter",
    ),
    # Its releases are trees; those of this collection's modules that swap files don't take them.
    Service("grafana", {"11.6.0": {}}, {}, "", ""),
)


class Mirror:
    """The mirror's tree below a directory. Made once, and whole when ``versions.json`` is there."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.work = directory.with_name(directory.name + ".work")
        self.architecture = run("dpkg", "--print-architecture").strip()

    def build(self) -> None:
        if (self.directory / "versions.json").exists():
            return
        versions: dict[str, list[str]] = {project.name: [] for project in PROJECTS}
        for suite in SUITES:
            root = self.work / suite / "root"
            if not root.exists():
                self.fetch(suite, root, [name for project in PROJECTS for name in project.packages])
            for project in PROJECTS:
                versions[project.name].append(self._version(suite, project))
                self._release(project, versions[project.name][-1], root)
        self._bad_releases()
        for service in SERVICES:
            versions[service.name] = list(service.versions)
            self._service(service)
        shutil.copytree(root / "usr/share/prometheus", self.directory / "share", symlinks=True, dirs_exist_ok=True)
        (self.directory / "versions.json").write_text(json.dumps(versions))
        shutil.rmtree(self.work)

    def versions(self) -> dict[str, list[str]]:
        """The real versions of each project, as Debian has them, oldest first."""
        return t.cast("dict[str, list[str]]", json.loads((self.directory / "versions.json").read_text()))

    def _version(self, suite: str, project: Project) -> str:
        (package,) = (self.work / suite).glob(f"{project.packages[0]}_*.deb")
        full = run("dpkg-deb", "--field", package, "Version")
        return full.rpartition("-")[0].partition("+")[0]

    def fetch(self, suite: str, root: pathlib.Path, packages: t.Iterable[str]) -> None:
        """Download those packages that a suite has from the mirror that this machine's apt uses, and unpack them."""
        print(f"Fetching the programs of {suite}", flush=True)
        work = root.parent
        shutil.rmtree(work, ignore_errors=True)
        for name in ("lists/partial", "archives/partial", "new"):
            (work / name).mkdir(parents=True)
        (work / "status").touch()
        (work / "sources.list").write_text(
            f"deb [signed-by={KEYRING} arch={self.architecture}] {debian_mirror()} {suite} main\n"
        )
        settings = {
            "Dir::Etc::SourceList": work / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": work,
            "Dir::State::status": work / "status",
            "Dir::Cache": work,
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        options = [f"-o{key}={value}" for key, value in settings.items()]
        run("apt-get", "-qq", *options, "update", cwd=work)
        offered = set(run("apt-cache", *options, "pkgnames", cwd=work).split())
        names = [name for name in packages if name in offered]
        run("apt-get", "-qq", *options, "download", *names, cwd=work)
        for package in work.glob("*.deb"):
            run("dpkg-deb", "--extract", package, work / "new")
        shutil.rmtree(work / "lists")
        (work / "new").rename(root)

    def _release(self, project: Project, version: str, root: pathlib.Path) -> None:
        archive = self._archive(project, version)
        if archive.exists():
            return
        top = self._top(project, version)
        with _Archive(archive) as tar:
            for directory in project.directories:
                tar.directory(f"{top}{directory}")
            for name, source in project.files.items():
                tar.file(f"{top}{name}", (root / "usr/bin" / source).read_bytes())
            tar.file(f"{top}LICENSE", b"See the package's copyright file.\n", 0o644)
        self._write_checksums(project, version)

    def _bad_releases(self) -> None:
        exported = _exported(self.work / SUITES[-1] / "root/usr/bin/prometheus-node-exporter")
        for name, releases in STAND_INS.items():
            project = next(project for project in PROJECTS if project.name == name)
            for version, traits in releases.items():
                archive = self._archive(project, version)
                if not archive.exists():
                    member = f"{self._top(project, version)}{name}"
                    samples = _part(exported, traits.get("METRICS", 100)) if name == "node_exporter" else ""
                    program = self._bad_program(name, version, {**traits, "METRICS": samples})
                    with _Archive(archive) as tar:
                        for other in project.files:
                            if other != name:
                                tar.file(f"{self._top(project, version)}{other}", program)
                        _add_badly(tar, version, member, program)
                    self._write_checksums(project, version)
                    _spoil(archive, version)

    def _bad_program(self, name: str, version: str, traits: dict[str, t.Any]) -> bytes:
        usual = {"SERVES": version, "LIVES": -1, "LISTENS": 1, "TAKEN": 0, "LACKS": "", "CANARY": 0, "DRIPS": 0}
        settings = {**usual, **traits, "NAME": name, "VERSION": traits.get("VERSION", version)}
        return _compile(self.work, settings.pop("SOURCE", "exporter.c"), settings)

    def _service(self, service: Service) -> None:
        """All releases of a program that Debian hasn't, and beside them each program as it is, for the first time."""
        for version, traits in service.versions.items():
            words = {"version": version, "arch": self.architecture}
            settings = {"NAME": service.name, "VERSION": version, "REFUSES": "", "LACKS": "", **traits}
            program = _compile(self.work, "service.c", settings)
            bare = self.directory / f"standins/{service.name}-{version}"
            bare.parent.mkdir(parents=True, exist_ok=True)
            bare.write_bytes(program)
            if service.archives:
                path = service.archives.get(version, service.archives["*"]).format(**words)
                archive = self.directory / path
                archive.parent.mkdir(parents=True, exist_ok=True)
                wrap(archive, service.member.format(**words), program)
                line = f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n"
                with archive.with_name(service.checksums.format(**words)).open("a") as checksums:
                    checksums.write(line)

    def _top(self, project: Project, version: str) -> str:
        return "" if project.flat else f"{project.name}-{version}.linux-{self.architecture}/"

    def _archive(self, project: Project, version: str) -> pathlib.Path:
        name = (
            f"{project.name}_{version}_linux_{self.architecture}"
            if project.flat
            else f"{project.name}-{version}.linux-{self.architecture}"
        )
        return self.directory / project.repository / f"releases/download/v{version}/{name}.tar.gz"

    def _write_checksums(self, project: Project, version: str) -> None:
        archive = self._archive(project, version)
        checksums = "sha256sums.txt"
        if project.flat and not version.startswith("0."):
            checksums = f"{project.name}_{version}_checksums.txt"
        line = f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n"
        archive.with_name(checksums).write_text(line)


_UNIT_SAMPLES = 400
"""About as many as the units of a host of the lab make. This machine may have no systemd."""


class _Archive:
    """A .tar.gz that appears when it is whole."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")

    def __enter__(self) -> _Archive:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._gzip = gzip.open(self.part, "wb", compresslevel=1)
        self._tar = tarfile.open(fileobj=self._gzip, mode="w", format=tarfile.GNU_FORMAT)
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._tar.close()
        self._gzip.close()
        if kind is None:
            self.part.rename(self.path)

    def directory(self, name: str) -> None:
        self.special(name, tarfile.DIRTYPE)

    def file(self, name: str, content: bytes, mode: int = 0o755) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), mode
        self._tar.addfile(member, io.BytesIO(content))

    def special(self, name: str, kind: bytes, target: str = "") -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.mode = kind, target, 0o755
        self._tar.addfile(member)


def _add_badly(tar: _Archive, version: str, member: str, program: bytes) -> None:
    """Put the program into the archive in the way that is this release's fault."""
    if version == "1.99.7":
        tar.file("../../../../usr/local/bin/climbed-out", program)
    if version == "1.99.8":
        tar.file("/usr/local/bin/absolute", program)
    if version == "1.99.9":
        tar.special(member, tarfile.SYMTYPE, "/bin/sh")
    elif version == "1.99.10":
        tar.special(member, tarfile.CHRTYPE)
    elif version != "1.99.11":
        tar.file(member, program)


def _spoil(archive: pathlib.Path, version: str) -> None:
    content = archive.read_bytes()
    if version == "1.99.5":
        archive.write_bytes(content + b"\0")
    if version == "1.99.6":
        archive.write_bytes(content[: len(content) // 2])
        checksums = archive.with_name("sha256sums.txt")
        checksums.write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")


def wrap(archive: pathlib.Path, member: str, program: bytes) -> None:
    """Lay a program out as its release does: in a zip, in a flat tar, or as it is."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(member, program)
    elif archive.suffix == ".gz":
        with _Archive(archive) as tar:
            tar.file(member, program)
            tar.file("LICENSE", b"A stand-in; see tests/lab/standins.\n", 0o644)
    else:
        archive.write_bytes(program)


def _exported(program: pathlib.Path) -> str:
    """What a real node_exporter exports on this machine, without its own version, and without the network devices of
    containers, which come and go; and what stands for the units that a host of the lab has beside."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with subprocess.Popen([program, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 20
        while True:
            try:
                body: str = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{program} doesn't answer here: {error}") from error
                time.sleep(0.1)
        running.terminate()
    left_out = r'^(# (HELP|TYPE) )?node_exporter_build_info.*\n|^# HELP.*\n|^node_network_.*device="veth.*\n'
    units = [
        f'node_systemd_unit_state{{name="standin-{number}.service",state="active",type="simple"}} 1\n'
        for number in range(_UNIT_SAMPLES)
    ]
    return "".join([re.sub(left_out, "", body, flags=re.MULTILINE), "# TYPE node_systemd_unit_state gauge\n", *units])


def _part(metrics: str, percent: int) -> str:
    """So many percent of the samples, with the types of those that stay."""
    lines = metrics.splitlines(keepends=True)
    samples = [number for number, line in enumerate(lines) if not line.startswith("#")]
    kept = {
        number
        for position, number in enumerate(samples)
        if position * percent // 100 != (position - 1) * percent // 100
    }
    families = {re.split(r"[{ ]", lines[number])[0] for number in kept}
    return "".join(
        line
        for number, line in enumerate(lines)
        if number in kept or (line.startswith("#") and line.split()[2] in families)
    )


def _compile(work: pathlib.Path, source: str, settings: dict[str, t.Any]) -> bytes:
    """A stand-in, made with the C compiler that starts fastest. Texts are C's; JSON's quoting is C's, too."""
    header, program = work / "standin.h", work / "standin"
    header.write_text("".join(f"#define {key} {json.dumps(value)}\n" for key, value in settings.items()))
    run("tcc", "-include", header, "-o", program, HERE / "standins" / source)
    return program.read_bytes()


def debian_mirror() -> str:
    """The mirror of Debian that this machine's apt uses."""
    listed = run("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(CODENAME)", "Created-By: Packages")
    for line in listed.splitlines():
        origin, uri, codename = line.rsplit(" ", 2)
        if origin == "Debian" and "-" not in codename:
            return uri
    raise SystemExit("This machine's apt has no mirror of Debian. The lab's programs come from there.")


def run(*argv: object, cwd: pathlib.Path | None = None) -> str:
    try:
        return subprocess.run(list(map(str, argv)), cwd=cwd, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, argv))
        raise SystemExit(f"exit code {error.returncode}: {command}\n{error.stderr}") from error
