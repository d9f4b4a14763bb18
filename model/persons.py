"""What the words of a message may become when they are said back: `perdí` is `perdiste`, `my` is `your`.

Text alone, without a dictionary: Spanish endings tell the person of a verb, and the irregular ones stand in a table.
More forms come out than exist (`paro` gives `paras` and `pares`): a model is to choose among them.
"""

import re
from collections.abc import Iterator
from itertools import chain

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
ACUTE = {**dict(zip("aeiou", "áéíóú", strict=True)), "n": "ñ"}
BARE = str.maketrans("áéíóúü’", "aeiouu'")


def _table(written: str) -> dict[str, list[str]]:
    """Reads `word form form; word form`, words without accents."""
    rows = (row.split() for row in written.split(";"))
    return {word: forms for word, *forms in rows}


IRREGULAR = _table(
    """me te you; mi tu ti; mis tus; yo tú; conmigo contigo; mio tuyo; mia tuya; mios tuyos; mias tuyas;
    vos tú; usted tú; nos os se les los las; nosotros vosotros ustedes; nosotras vosotras ustedes;
    nuestro vuestro su tu; nuestra vuestra su tu; nuestros vuestros sus tus; nuestras vuestras sus tus;
    soy eres; estoy estás; toy estás; toi estás; voy vas; doy das; se sabes; he has; e has; tengo tienes; tngo tienes;
    vengo vienes; digo dices; hago haces; quepo cabes; sigo sigues; consigo consigues; persigo persigues; fui fuiste;
    vi viste; di diste; hice hiciste; hemos habéis han; somos sois son; vamos vais van; fuimos fuisteis fueron;
    dimos disteis dieron; vimos visteis vieron; ibamos ibais iban; eramos erais eran;
    i you; my your; mine yours; myself yourself; we you; us you; our your; ours yours; ourselves yourselves;
    am are; im you're you are; i'm you're you are; ive you've you have; i've you've you have; i'd you'd you had would;
    i'll you'll you will; was were; wasn't weren't; wasnt weren't; we're you're you are; we've you've you have;
    we'd you'd you had would"""
)
SHORT = _table(
    """q que; k que; ke que; xq porque; pq porque; porq porque; aunq aunque; tb también; tmb también; x por; d de; m te;
    pa para; na nada; mñn mañana; finde fin de semana; bb bebé; cn con; dsd desde; kien quién; aki aquí; kiero quieres;
    u you; ur your; r are; n and; bc because; dont don't; cant can't; didnt didn't; doesnt doesn't; isnt isn't;
    wont won't; havent haven't; couldnt couldn't; its it's; thats that's; hes he's; shes she's; nobodys nobody has"""
)
# How a first person ends, and what its second person has instead; the plural is that of `vosotros` and of `ustedes`.
ENDINGS = _table(
    """o as es; io íes ías; go es gues; igo es; zco ces; jo ges; zo ces; a as; i iste íste; e aste iste es; que caste;
    gue gaste; ce zaste ciste; re rás; amos áis an asteis aron; abamos abais aban; emos éis en; imos ís en isteis ieron
    íais eron; iamos íais ían; ramos rais ran; remos réis rán; rme rte; ndome ndote; rnos ros rse rles;
    ndonos ndoos ndose"""
)
STEMS = (("e", "ie"), ("o", "ue"), ("e", "i"), ("u", "ue"))  # `dormimos`, but `duermen`
SMALL = _table(
    """es cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince;
    en zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"""
)
TENS = _table(
    """es - dieci veinti treinta cuarenta cincuenta sesenta setenta ochenta noventa;
    en - ten twenty thirty forty fifty sixty seventy eighty ninety"""
)
NUMBERS = frozenset(chain(*SMALL.values(), *TENS.values(), ["veinte", "cien", "mil"]))


def words_said_back(text: str) -> set[str]:
    """Returns what every word of a text may become, the words themselves among them."""
    return set(chain.from_iterable(map(said_back, WORD.findall(text))))


def said_back(word: str) -> set[str]:
    """Returns the forms that a word may have when it is said to the one who wrote it, also with its accents mended."""
    low, bare = word.lower(), word.lower().translate(BARE)
    if bare.isdecimal():
        return {low, *(spelled(int(low)) if len(low) < 3 else ())}
    forms = {word, low, word.capitalize(), low.replace("’", "'"), *IRREGULAR.get(bare, ()), *SHORT.get(bare, ())}
    if len(bare) > 2:
        forms.update(_turned(low, bare), _accented(bare))
    return forms


def _turned(low: str, bare: str) -> Iterator[str]:
    """Yields the second persons of a verb; of a noun, words that there are not."""
    for old, new in ENDINGS.items():
        if bare.endswith(old):
            stems = {low[: -len(old)], bare[: -len(old)]}
            if old.endswith("mos"):
                stems.update(_changed(low[: -len(old)]))
            yield from (stem + ending for stem in stems for ending in new)


def _changed(stem: str) -> Iterator[str]:
    for old, new in STEMS:
        before, found, after = stem.rpartition(old)
        if found:
            yield before + new + after


def _accented(bare: str) -> Iterator[str]:
    """Yields what a word typed without accents may be."""
    for at, letter in enumerate(bare):
        if letter in ACUTE:
            yield bare[:at] + ACUTE[letter] + bare[at + 1 :]


def spelled(number: int) -> Iterator[str]:
    """Yields the words of a number below a hundred, in both languages."""
    for small, tens in zip(SMALL.values(), TENS.values(), strict=True):
        if number < len(small):
            yield small[number]
        elif number < 100:
            ten, one = tens[number // 10], small[number % 10]
            yield from (ten, one, f"{one}teen", "veinte", ten + one, *_accented(ten + one))
