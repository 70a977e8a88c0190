"""The README's walk through the API is run as it stands, in both languages."""

import os
import re
import subprocess

import pytest

from tests.pictures import opened
from tests.servers import ROOT


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_walk_through_gives_the_answers_it_shows(live, tmp_path, name):
    service = live()
    script = re.search(r"```sh\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S).group(1)
    expected = [line[2:] for line in script.splitlines() if line.startswith("# {")]
    script = "set -eu\n" + script.replace("http://localhost:8000", service.url)

    ended = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, env={**os.environ}
    )

    answers = [line for line in ended.stdout.splitlines() if line]
    assert ended.returncode == 0
    assert len(answers) == len(expected)
    for answer, shown in zip(answers, expected, strict=True):
        assert answer.startswith(shown.removesuffix("…"))
    assert opened((tmp_path / "sunset.png").read_bytes()).size == (512, 512)
