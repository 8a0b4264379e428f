"""`push_to_hub` and `from_pretrained` over HTTP, by the real client, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from student.hub import TOKEN, LocalHub, front_matter_errors, local_hub
from student.test_model import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with local_hub() as server:
        yield server


@pytest.fixture
def ask(hub: LocalHub, tmp_path: Path) -> Callable[..., list[Any]]:
    """Run code in a fresh interpreter whose Hub is here; every ``tell(…)`` in it comes back, errors in words."""

    def run(code: str, **env: str) -> list[Any]:
        start = textwrap.dedent("""
            import json, sys
            import likemind
            def tell(value):
                print("told", json.dumps(value))
            try:
                exec(sys.argv[1])
            except likemind.LikemindError as error:
                tell("LikemindError: " + str(error))
        """)
        at = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", start, textwrap.dedent(code)]
        done = subprocess.run(
            command,
            env=os.environ | at | quiet | env,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        told = [line for line in done.stdout.splitlines() if line.startswith("told ")]
        return [json.loads(line.removeprefix("told ")) for line in told]

    return run


CARD = "---\nlibrary_name: likemind\nlicense: unknown\n---\n\n# A card\n"


def test_there_and_back(hub: LocalHub, ask: Callable[..., list[Any]], tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "m", card=CARD)
    told = ask("""
        model = likemind.AlignedModel.from_pretrained("m")
        tell(model.push_to_hub("somebody/lizard", private=True))
        first = likemind.AlignedModel.from_pretrained("somebody/lizard")
        tell([first.key == model.key, first.card, list(first.layers)])
        model.card += "More.\\n"
        tell(model.push_to_hub("somebody/lizard"))
    """)
    (_, first), (_, second) = hub.repositories["somebody/lizard"][1:]
    assert first == {f.relative_to(tmp_path / "m").as_posix(): f.read_bytes() for f in (tmp_path / "m").rglob("*.*")}
    assert {name for name in second if second[name] != first[name]} == {"README.md"}
    old, new = (sha for sha, _ in hub.repositories["somebody/lizard"][1:])
    commits = [f"{hub.url}/somebody/lizard/commit/{sha}" for sha in (old, new)]
    assert told == [commits[0], [True, CARD, ["backbone", "head", "shipped"]], commits[1]]
    assert hub.private == {"somebody/lizard": True}


@pytest.mark.slow
def test_revisions_strangers_and_no_network(hub: LocalHub, ask: Callable[..., list[Any]], tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "m", card=CARD)
    ask("""
        model = likemind.AlignedModel.from_pretrained("m")
        model.push_to_hub("somebody/lizard", private=True)
        model.card += "More.\\n"
        model.push_to_hub("somebody/lizard")
    """)
    old, _ = (sha for sha, _ in hub.repositories["somebody/lizard"][1:])
    told = ask(f"""
        for revision in (None, "main", {old!r}):
            tell(likemind.AlignedModel.from_pretrained("somebody/lizard", revision=revision).card)
        likemind.AlignedModel.from_pretrained("somebody/lizard", revision="v9")
    """)
    assert told[:3] == [CARD + "More.\n", CARD + "More.\n", CARD]
    assert told[3].endswith("(it has no revision 'v9' there): check the revision")
    load = 'tell(likemind.AlignedModel.from_pretrained("somebody/lizard").key)'
    (refused,) = ask(load, HF_TOKEN="", HF_HOME=str(tmp_path / "stranger"))
    assert refused.endswith("(there is none, or it is private): check the name and your login")

    # without a network: what the cache holds is found, what it does not hold is said in one sentence
    for offline in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        key, refused = ask(f"{load}\n{load.replace('lizard', 'snake')}", **offline)
        assert key == model.key
        assert refused.endswith("the cache does not hold it): check the name and the network")
        assert "\n" not in refused


@pytest.mark.slow
def test_an_interrupted_download_is_said_and_goes_on(
    hub: LocalHub, ask: Callable[..., list[Any]], tmp_path: Path
) -> None:
    model = build()
    model.save_pretrained(tmp_path / "m", card=CARD)
    ask('likemind.AlignedModel.from_pretrained("m").push_to_hub("somebody/lizard")')
    load = 'tell(likemind.AlignedModel.from_pretrained("somebody/lizard").key)'
    hub.cuts = 10**6
    (refused,) = ask(load)
    assert refused.startswith("LikemindError: somebody/lizard is neither a folder nor to be had from the Hub (")
    assert "\n" not in refused
    hub.cuts = 0
    assert ask(load) == [model.key]
    hub.cuts = 1  # the client picks up where the line broke
    assert ask(load, HF_HOME=str(tmp_path / "elsewhere")) == [model.key]


@pytest.mark.slow
def test_what_cannot_be_pushed(hub: LocalHub, ask: Callable[..., list[Any]], tmp_path: Path) -> None:
    build().save_pretrained(tmp_path / "m", card=CARD.replace("unknown", "my-own"))
    push = 'likemind.AlignedModel.from_pretrained("m").push_to_hub("somebody/lizard")'
    unreachable = ask(push, HF_ENDPOINT="http://127.0.0.1:9")
    stranger = ask(push, HF_TOKEN="hf_" + "wrong" * 6)
    assert hub.repositories == {}
    told = [unreachable, stranger, ask(push), ask(push.replace("somebody/", "some body/"))]
    for (words,) in told:
        assert words.startswith("LikemindError: some")
        assert "cannot be uploaded (" in words
        assert words.endswith(": check the name, the network and your login")
        assert "\n" not in words
    assert len(hub.repositories["somebody/lizard"]) == 1  # made, and nothing committed


def test_the_stand_in_knows_a_bad_front_matter() -> None:
    assert front_matter_errors(CARD) == []
    assert front_matter_errors("# A card\n") == ["no front matter"]
    assert front_matter_errors("---\nlicense: [a]\n---\n") == ["license is not text"]
    assert front_matter_errors("---\nlicense: my-own\nbase_model: a/b/c\n---\n") == [
        "license 'my-own' is not one of the Hub's",
        "base_model is no id",
    ]
