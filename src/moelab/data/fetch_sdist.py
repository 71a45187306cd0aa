"""`python -m moelab.data.fetch_sdist NAME VERSION FILE`: download a source archive without building anything.

`pip download` of a source archive runs its build back end to learn its metadata, even with --no-deps. This asks pip's
own package finder where the archive is and pip's own session to bring it (so the configured index, proxy, certificates
and credentials are used), and stops there. pip promises no stable Python interface: the calls used here exist since
pip 20, and where they fail the caller reports that in one line.
"""

import sys
from pathlib import Path


def main(name: str, version: str, path: Path) -> str | None:
    """Write the archive to `path`. Returns a complaint, or None when all went well."""
    from pip._internal.commands import create_command

    command = create_command("download")
    options, _ = command.parse_args(["--no-deps", "--no-input", "-q", name])
    with command.main_context():
        session = command.get_default_session(options)  # type: ignore[attr-defined]
        finder = command._build_package_finder(options=options, session=session)  # type: ignore[attr-defined]
        links = {
            candidate.link.filename: candidate.link
            for candidate in finder.find_all_candidates(name)
            if str(candidate.version) == version and not candidate.link.is_wheel
        }
        if not links:
            return f"no source archive of version {version} found on the package index (or no connection to it)"
        link = links.get(path.name) or next(iter(links.values()))
        response = session.get(link.url_without_fragment, stream=True, headers={"Accept-Encoding": "identity"})
        response.raise_for_status()
        with open(path, "wb") as stream:
            while chunk := response.raw.read(1 << 16):
                stream.write(chunk)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
