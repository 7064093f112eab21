"""Who runs this process, and a folder that no other user can write to. No torch in here.

A container may run as a user id without a name (`docker --user 12345`, OpenShift) and without a home; libraries then
fail on import, or make a folder called `~`.
"""

import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from obsdiff.errors import SpecError
from obsdiff.storage.cache import cache_folder


def name() -> str:
    """The user's name as the machine knows it, `uid-12345` where it knows none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid-{os.geteuid()}"


def settle() -> None:
    """Give this process the USER and HOME that libraries ask for where its user id has no entry on this machine.

    A HOME that can be written to stays.
    """
    try:
        pwd.getpwuid(os.getuid())
        return
    except KeyError:
        os.environ.setdefault("USER", f"uid-{os.getuid()}")
    if not os.access(os.environ.get("HOME") or "/nowhere", os.W_OK):
        os.environ["HOME"] = "/"
        with suppress(SpecError, OSError):
            home = private_folder() / "home"
            home.mkdir(mode=0o700, exist_ok=True)
            os.environ["HOME"] = str(home)


def private_folder() -> Path:
    """A folder on this machine with mode 0700, the same for all processes of the user, made if missing.

    Places that are not there, not writable, or where another user made a folder of the name are passed over:
    XDG_RUNTIME_DIR, /tmp, TMPDIR, /var/tmp, OBSDIFF_CACHE.

    Raises:
        SpecError: none of them can be used.
    """
    tried = []
    for place in places():
        folder = place / f"obsdiff-{os.geteuid()}"
        if why := unusable(folder):
            tried.append(f"{folder} ({why})")
        else:
            return folder
    raise SpecError(f"XDG_RUNTIME_DIR: no folder of your own can be made; set it to one. Tried {', '.join(tried)}")


def places() -> Iterator[Path]:
    named = (os.environ.get("XDG_RUNTIME_DIR"), "/tmp", os.environ.get("TMPDIR"), "/var/tmp")
    yield from (Path(place) for place in dict.fromkeys(named) if place)
    with suppress(OSError):
        os.makedirs(cache_folder(), exist_ok=True)
    yield cache_folder()


def unusable(folder: Path) -> str | None:
    """Why a folder is not this user's alone, None if it is; made if missing."""
    user = os.geteuid()
    try:
        above = folder.parent.stat()
        shared = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
        if above.st_uid not in (0, user) or shared:
            return "others can replace it"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return "it is not a folder"
        if found.st_uid != user:
            return f"it belongs to user id {found.st_uid}"
        if found.st_mode & 0o077:
            return f"its mode is {stat.S_IMODE(found.st_mode):04o}, not 0700"
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return str(error.strerror)
