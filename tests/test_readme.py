"""The README is true: its header, its commands, its Python, its table of settings."""

import os
import re
import subprocess
import sys
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import EIGHT_B, Settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def header() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(README.split("---")[1])
    return found


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_the_space_header_agrees_with_the_pins_and_the_files() -> None:
    space = header()
    assert space["sdk"] == "gradio" and space["sdk_version"] == pins()["gradio"] == version("gradio")
    assert (ROOT / space["app_file"]).exists()
    assert space["license"] == "mit" and "MIT" in (ROOT / "LICENSE").read_text()
    assert EIGHT_B in space["models"] and EIGHT_B in space["preload_from_hub"]
    assert space["python_version"] == "3.12" and space["hf_oauth"] is True
    assert len(space["short_description"]) <= 60


def test_requirements_are_pinned_and_those_of_the_space_s_image_are_not() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    free = {line for line in lines if "==" not in line}
    assert {"torch", "gradio", "spaces", "huggingface_hub"} <= free
    pinned = {name.lower().replace("_", "-"): number for name, number in pins().items()}
    for line in lines:
        name, _, number = line.partition("==")
        assert name.lower().replace("_", "-") in pinned
        assert not number or pinned[name.lower()] == number


def test_every_shell_command_works(app_url: str) -> None:
    for line in "\n".join(blocks("bash")).splitlines():
        command = line.split("#")[0].strip()
        if not command:
            continue
        words = [word for word in command.split() if not re.match(r"[A-Z_]+=", word)]
        if words[0] == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[:2] == [".venv/bin/python", "-m"]:
            subprocess.run([sys.executable, "-m", words[2], "--help"], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "curl":
            with urllib.request.urlopen(words[1].replace("http://127.0.0.1:7860/", app_url), timeout=20) as answer:
                assert answer.status == 200
        else:
            pytest.fail(f"nobody checks this command: {command}")


def test_the_python_example_runs(app_url: str) -> None:
    (example,) = blocks("python")
    code = example.replace("http://127.0.0.1:7860", app_url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "**Yo**" in done.stdout


def test_the_table_of_settings_is_that_of_the_code() -> None:
    for name, field in Settings.model_fields.items():
        assert f"| `{name.upper()}` |" in README, name
        assert str(field.description) in README, name


def test_every_link_and_picture_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_embed_script_is_gradio_s_own(app_url: str) -> None:
    with urllib.request.urlopen(f"{app_url}embed.js", timeout=20) as answer:
        found = re.search(r'"\./(assets/index-[\w-]+\.js)"', answer.read().decode())
        assert found and "javascript" in answer.headers["content-type"]
    with urllib.request.urlopen(app_url + found[1], timeout=20) as component:
        assert component.status == 200


def test_no_word_of_the_readme_offers_what_this_is_not() -> None:
    text = README.replace(EIGHT_B, "")
    assert not re.search(r"(?i)terapeuta|therapist|diagn[oó]s(tic|is)|psicoterap|psychotherap", text)
    for found in re.finditer(r"(?i)terapia|therapy", text):
        assert re.search(r"(?i)(no es|not|ni) $", text[max(0, found.start() - 12) : found.start()])


def test_every_module_says_what_it_is() -> None:
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.split():
        text = (ROOT / name).read_text(encoding="utf-8") if Path(ROOT / name).exists() else '"""'
        assert not text or text.startswith('"""'), name
    assert os.access(ROOT / ".ci/run", os.X_OK)
