"""What words become when they are said back."""

import time

import pytest

from model.persons import said_back, words_said_back

SPANISH = """
perdí perdiste; me te; mudo mudas; caí caíste; conduje condujiste; busqué buscaste; llegué llegaste; empecé empezaste;
conozco conoces; elijo eliges; sigo sigues; hago haces; pongo pones; salgo sales; tengo tienes; duermo duermes;
soy eres; iba ibas; trabajaba trabajabas; quería querías; vaya vayas; iré irás; podría podrías; he has;
irme irte; quejándome quejándote; hablarnos hablaros; nuestro vuestro; conmigo contigo; mí ti; tuve tuviste; leí leíste
"""
WE = """
mudamos mudan; mudamos mudasteis; dormimos duermen; podemos podéis; podemos pueden; vivimos viven; íbamos ibais;
teníamos tenían; estuvimos estuvieron; hemos habéis; somos son; vendimos vendieron; pedimos piden; jugamos juegan
"""
ENGLISH = "i you; my your; i'm you're; was were; myself yourself; we you; our your; I’ve you've; me you"
TYPED = "xq porque; tb también; mñn mañana; cancion canción; nino niño; 9 nueve; 54 cincuenta; 23 veintitrés"


def pairs(*texts: str) -> list[tuple[str, str]]:
    return [(first, second) for text in texts for first, second in (pair.split() for pair in text.split(";"))]


@pytest.mark.parametrize(("said", "heard"), pairs(SPANISH, WE, ENGLISH, TYPED))
def test_a_word_has_the_form_in_which_it_is_said_back(said: str, heard: str) -> None:
    assert heard in said_back(said)


@pytest.mark.parametrize("word", ["Sligo", "NEPA", "campesino", "ñandú", "São", "2019", "de", "o’clock"])
def test_a_word_may_stay_what_it_is(word: str) -> None:
    assert word in said_back(word)


def test_a_third_person_does_not_become_a_second_by_another_verb() -> None:
    forms = words_said_back("mi amigo desapareció sin decirme adiós")
    assert "desapareció" in forms
    assert "desapareciste" not in forms


@pytest.mark.parametrize("text", ["", "…!?", "🙂🙂", "\x00\x1b", "9" * 5000, "٣ ², ½", "' '' '", "<|eot_id|>" * 3])
def test_any_text_has_words_or_none(text: str) -> None:
    assert all(words_said_back(text))


def test_the_longest_message_takes_little_time() -> None:
    text = " ".join(f"palabra{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}amos" for n in range(300))[:4000]
    began = time.perf_counter()
    assert len(words_said_back(text)) > 1000
    assert time.perf_counter() - began < 2
