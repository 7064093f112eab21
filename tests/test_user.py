"""Users without a name and a home, and folders that others could write to."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from project import LEFT_OUT
from tracked import grid, own_store, write

from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.jobs import user

__all__ = ["own_store"]
ROOT = Path(__file__).parents[1]
NAMELESS = 54321
UNKNOWN = "import pwd\npwd.getpwuid = pwd.getpwnam = lambda who: {}[who]\n"
COMMANDS = """
import sys
sys.path.insert(0, ROOT)
from obsdiff.jobs.warm import run
from obsdiff.__main__ import main
from eval.__main__ import main as suite
prune = "prune --model tiny --method magnitude --sparsity 0.5 --out pruned"
track = "track --sweep s --results . --out m.json --metrics"
code = run("obsdiff.__main__", main, prune.split()) + run("eval.__main__", suite, [*track.split(), *sys.argv[1:]])
import getpass, matplotlib
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
print(code, getpass.getuser(), default_cache_dir(), matplotlib.get_cachedir())
"""


def nameless(folder: Path, code: str, home: str = "/") -> list[str]:
    """Python as a user id that the machine does not know; without root's rights it is only told that it does not.

    Args:
        folder: what belongs to that user.
    """
    clean = ["env", "-u", "USER", "-u", "LOGNAME", "-u", "XDG_RUNTIME_DIR", f"HOME={home}"]
    if os.geteuid():
        return [*clean, sys.executable, "-c", UNKNOWN + code]
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NAMELESS, NAMELESS)
    read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    who = ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups", *read]
    return [*who, *clean, sys.executable, "-c", code]


def test_user_id_without_a_name_or_home_prunes_and_tracks(tmp_path):
    registry.load("obsdiff.models", "sd3").tiny().save_pretrained(tmp_path / "tiny")
    paths = [write(tmp_path, cell, 1.0) for cell in grid()]
    command = [
        *nameless(tmp_path, COMMANDS.replace("ROOT", repr(str(ROOT)))),
        *(str(path.relative_to(tmp_path)) for path in paths),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    who = NAMELESS if not os.geteuid() else os.geteuid()
    assert done.stdout.splitlines()[-1].startswith(f"0 uid-{who} /"), done.stderr
    assert {"pruned", "m.json", "mlflow.db"} < {path.name for path in tmp_path.iterdir()} and not (
        tmp_path / "~"
    ).exists()


def test_user_id_without_a_name_plans_a_sweep(tmp_path):
    """Snakemake itself asks who runs it, and wants a home that can be written to, as an image sets one."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (tmp_path / "home").mkdir()
    code = "from snakemake.cli import main\nmain(['--dry-run', '--quiet', '--cores', '1'])"
    done = subprocess.run(
        nameless(tmp_path, code, str(tmp_path / "home")), cwd=clone, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_user_that_the_machine_knows_keeps_its_environment(monkeypatch):
    monkeypatch.delenv("HOME")
    before = dict(os.environ)
    user.settle()
    assert dict(os.environ) == before


def spoiled(folder: Path) -> dict[str, object]:
    """What somebody else may have put where the private folder belongs → how."""
    return {
        "it is not a folder": lambda: folder.symlink_to("/tmp"),
        "Not a directory": lambda: (folder.parent.rmdir(), folder.parent.touch()),
        "its mode is 0750, not 0700": lambda: (folder.mkdir(), folder.chmod(0o750)),
        "others can replace it": lambda: folder.parent.chmod(0o777),
        "No such file or directory": lambda: folder.parent.rmdir(),
    }


@pytest.mark.parametrize("why", spoiled(Path("x")))
def test_private_folder_passes_over_what_is_not_ours(why, tmp_path, monkeypatch):
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    folder = places[0] / f"obsdiff-{os.geteuid()}"
    spoiled(folder)[why]()
    monkeypatch.setattr(user, "places", lambda: places)
    found = user.private_folder()
    assert found.parent == places[1] and stat.S_IMODE(found.stat().st_mode) == 0o700
    monkeypatch.setattr(user, "places", lambda: places[:1])
    with pytest.raises(SpecError, match=f"XDG_RUNTIME_DIR: no folder of your own.*{why}"):
        user.private_folder()


def test_folder_of_another_user_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "obsdiff-54321").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: NAMELESS)
    assert user.unusable(tmp_path / "obsdiff-54321") in ("it belongs to user id 0", "others can replace it")


def test_default_places_are_tried_in_order(tmp_path, monkeypatch):
    for name in ("XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("OBSDIFF_CACHE", str(tmp_path / "cache"))
    named = ["XDG_RUNTIME_DIR", "/tmp", "TMPDIR", "/var/tmp", "cache"]
    assert list(user.places()) == [tmp_path / name for name in named]
