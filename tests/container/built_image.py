"""containers/Dockerfile built, and a sweep run in the image: `make test-container`, as root, with Debian's packages.

It takes debootstrap for the base image and buildah for the rest, so neither Docker nor an image registry is needed.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
SOMEBODY = "12345:12345"
"""a user and group that the image does not know"""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""this machine's, for one behind a proxy with a certificate of its own"""
CONFIG = "name: image\nmodels: [emoji-sd3]\ngrid: {method: [magnitude], sparsity: [0.5]}\n"


def buildah(storage: Path, *arguments: str) -> str:
    command = ["buildah", "--root", str(storage), "--runroot", str(storage / "run"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"BUILDAH_ISOLATION": "chroot"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Callable[..., str]]:
    """Runs buildah's options and a command in the image of this checkout, on a Debian that debootstrap brings."""
    folder = tmp_path_factory.mktemp("image")
    call = partial(buildah, folder / "storage")
    base = folder / "base"
    packages = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(base)]
    subprocess.run(packages, check=True, capture_output=True)
    call("from", "--name", "base", "scratch")
    call("add", "base", str(base), "/")
    call("copy", "base", CERTIFICATES, CERTIFICATES)
    call("config", "--env", f"SSL_CERT_FILE={CERTIFICATES}", "base")
    call("commit", "base", "localhost/obsdiff-base")
    recipe = ["--file", str(ROOT / "containers/Dockerfile"), "--build-arg", "BASE=localhost/obsdiff-base"]
    call("build", *recipe, "--tag", "localhost/obsdiff", str(ROOT))
    call("from", "--name", "running", "localhost/obsdiff")
    yield lambda options, *command: call("run", *options, "running", "--", *command)
    call("rm", "--all")
    shutil.rmtree(folder, ignore_errors=True)


def test_the_image_has_the_checkout_and_its_environment(run):
    said = run([], "sh", "-c", "pwd; obsdiff --help; python -m eval check; ls .git")
    assert said.startswith("/opt/obsdiff") and "prune" in said and "HEAD" in said


def test_a_clone_is_swept_by_a_user_the_image_does_not_know(run, tmp_path):
    """As docs/cluster.md says: the environment is the image's, code and results are the clone's; twice does nothing."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    (clone / "small.yaml").write_text(CONFIG)
    subprocess.run(["chown", "--recursive", SOMEBODY, str(clone)], check=True)
    place = ["--user", SOMEBODY, "--volume", f"{clone}:/work", "--workingdir", "/work"]
    sweep = ["snakemake", "--cores", "2", "--configfile", "small.yaml", "--config", "count=16"]
    run(place, *sweep)
    table = pd.read_csv(clone / "results/sweeps/image/summary.csv")
    assert table["method"].tolist() == ["dense", "magnitude"]
    assert table["measured_sparsity"].tolist() == pytest.approx([0.0, 0.5], abs=1e-4)
    assert (clone / "results/sweeps/image/report.html").stat().st_uid == int(SOMEBODY.partition(":")[0])
    assert "Nothing to be done" in run(place, *sweep)
