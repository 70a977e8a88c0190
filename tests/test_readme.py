"""The calls that README and docs/accounts.md show are made as they stand, in both languages."""

import os
import re
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

from tests.pictures import opened
from tests.servers import ROOT


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_walk_through_gives_the_answers_it_shows(live, tmp_path, name):
    service = live()

    check_answers(blocks(name)[0], service, tmp_path, dict(os.environ))

    assert opened((tmp_path / "sunset.png").read_bytes()).size == (512, 512)


@pytest.mark.parametrize("name", ["docs/accounts.md", "docs/accounts.zh-CN.md"])
def test_the_calls_about_accounts_give_the_answers_they_show(live, name):
    service = live()
    of_app = "import pyotp, sys; print(pyotp.TOTP(sys.argv[1]).now())"
    script = "\n".join(blocks(name))
    script = script.replace(".venv/bin/flask", f"{sys.executable} -m flask")
    script = script.replace("CODE=123456", f'CODE=$({sys.executable} -c "{of_app}" "$SECRET")')

    check_answers(script, service, ROOT, service.environment)


def blocks(name):
    return re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def check_answers(script, service, folder, environment):
    """Run the script, and compare what it prints with its lines of "# {"."""
    expected = [line[2:] for line in script.splitlines() if line.startswith("# {")]
    script = "set -eu\n" + script.replace("http://localhost:8000", service.url)

    ended = subprocess.run(
        ["sh", "-c", script], cwd=folder, capture_output=True, text=True, env=environment
    )

    answers = [line for line in ended.stdout.splitlines() if line]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(answers) == len(expected)
    for answer, shown in zip(answers, expected, strict=True):
        assert answer.startswith(shown.removesuffix("…"))


if __name__ == "__main__":
    # `python -m tests.test_readme URL` tries a service without workers, as in a container.
    with tempfile.TemporaryDirectory() as folder:
        check_answers(blocks("README.md")[0], SimpleNamespace(url=sys.argv[1]), folder, None)
