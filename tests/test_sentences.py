"""The catalogue: complete in both languages, and honest about what this is."""

import pickle
import re
import string
from pathlib import Path

import pytest

from config import Settings, read_settings
from errors import ModelError, RemansoError
from sentences import LANGUAGES, Language, catalogue, preferred, say

ROOT = Path(__file__).parent.parent


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_both_languages_have_the_same_sentences_with_the_same_values() -> None:
    spanish, english = catalogue("es"), catalogue("en")
    assert spanish.keys() == english.keys()
    assert [key for key in spanish if fields(spanish[key]) != fields(english[key])] == []
    assert all(text.strip() for text in [*spanish.values(), *english.values()])


def test_no_sentence_offers_what_this_is_not() -> None:
    offered = re.compile(
        r"(?i)terapeuta|psicoterap|diagn[oó]s|tratamiento|therapist|psychotherap|treatment|terapia|therapy"
    )
    denied = re.compile(r"(?i)(no es|not|it is not|ni) (una )?(terapia|therapy)|no es terapia|not therapy")
    for language in LANGUAGES:
        for key, text in catalogue(language).items():
            assert not offered.search(denied.sub("", text)), key


def test_every_error_that_the_code_can_raise_has_its_sentence() -> None:
    pattern = re.compile(r'(?:Error|_refuse)\(\s*(?:request, \d+, )?"(\w+)"')
    sources = [*ROOT.glob("*.py"), *ROOT.glob("model/*.py"), *ROOT.glob("safety/*.py")]
    codes = {code for path in sources for code in pattern.findall(path.read_text(encoding="utf-8"))}
    assert len(codes) > 8
    assert {f"error.{code}" for code in codes} <= catalogue("es").keys()


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("es-MX,es;q=0.9,en;q=0.8", "es"),
        ("en-US,en;q=0.9", "en"),
        ("fr-FR,en;q=0.5", "en"),
        ("fr", "es"),
        ("", "es"),
        (None, "es"),
        ("*", "es"),
    ],
)
def test_a_browser_s_languages_choose_ours(header: str | None, language: Language) -> None:
    assert preferred(header, "es") == language


def test_an_error_survives_the_way_out_of_another_process() -> None:
    again = pickle.loads(pickle.dumps(ModelError("disk_full", folder="/x", needed=1)))
    assert isinstance(again, ModelError) and isinstance(again, RemansoError)
    assert (again.code, again.values) == ("disk_full", {"folder": "/x", "needed": 1})
    assert "850" in say("es", "error.disk_full", folder="/x", needed=850)


def test_a_wrong_setting_is_refused_with_its_name_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTIZATION", "4bits")
    with pytest.raises(SystemExit, match="QUANTIZATION='4bits'"):
        read_settings()


def test_settings_say_who_may_frame_the_page() -> None:
    assert Settings(embed_origins="*").frame_ancestors == "*"
    assert Settings(embed_origins="none").frame_ancestors == "'none'"
    assert Settings(embed_origins="https://a.org https://b.org").frame_ancestors == "'self' https://a.org https://b.org"


def test_a_token_is_never_printed() -> None:
    assert "secreto" not in repr(Settings(hf_token="secreto"))
