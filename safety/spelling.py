"""Writes a message in one plain spelling, so that a phrase is recognised however it was typed.

The result is lower-case words, numbers, commas, quotes and full stops, one space apart, and is made for matching only:
letters that sound alike in Spanish are folded into one (c/k/q, b/v, z/s, silent h), doubled letters into a single one.
"Kiero  m0rirmeee" and "quiero morirme" come out equal. The phrase table goes through `fold_pattern`, the same folding.
It knows nothing of risk, and of no language beyond these habits of writing.
"""

import re
import unicodedata
from functools import cache, lru_cache

LOOKALIKES = str.maketrans(
    "авезікмнорстухѕјԁɡαβεικνορτυχ’`´‘‐‑–—“”«»…",
    "abe3ikmhopctyxsjdgabeiknoptux''''----\"\"\"\".",
)
EMOJI = {
    "🔪": "cuchillo", "🗡": "cuchillo", "🔫": "pistola", "💊": "pastillas", "🩸": "sangre", "⚰": "ataud", "🪦": "tumba",
    "💀": "calavera", "☠": "calavera", "🪢": "soga", "🌉": "puente", "😂": "jaja", "🤣": "jaja",
}  # fmt: skip
LEET = str.maketrans("013457$@", "oieastsa")
# What people write by thumb.
THUMBED = {
    "q": "que", "k": "que", "x": "por", "d": "de", "m": "me", "t": "te", "n": "en", "xq": "porque", "pq": "porque",
    "porq": "porque", "tq": "te quiero", "toy": "estoy", "toi": "estoy", "stoy": "estoy", "estoi": "estoy",
    "sto": "esto", "voi": "voy", "vo": "voy", "soi": "soy", "mui": "muy", "ai": "ay", "tngo": "tengo", "tng": "tengo",
    "bn": "bien", "tb": "tambien", "tmb": "tambien", "nd": "nada", "nda": "nada", "na": "nada", "qro": "quiero",
    "kero": "quiero", "kier": "quiero", "ms": "mas", "pa": "para", "cn": "con", "mxo": "mucho", "vda": "vida",
    "dsd": "desde", "sta": "esta", "pastis": "pastillas",
    "wanna": "want to", "wana": "want to", "gonna": "going to", "gna": "going to", "im": "i am", "ive": "i have",
    "cant": "can not", "cannot": "can not", "dont": "do not", "didnt": "did not", "doesnt": "does not",
    "wont": "will not", "wouldnt": "would not", "isnt": "is not", "wasnt": "was not", "arent": "are not",
    "havent": "have not", "hasnt": "has not", "hadnt": "had not", "werent": "were not", "couldnt": "could not",
    "shouldnt": "should not", "aint": "am not", "idk": "i do not know", "idc": "i do not care",
    "gunna": "going to", "wnna": "want to", "wanta": "want to", "gotta": "got to", "cos": "because", "coz": "because",
    "nvr": "never", "smth": "something", "sumthing": "something", "rly": "really", "thru": "through", "plz": "please",
    "pls": "please", "bf": "boyfriend", "gf": "girlfriend", "dnt": "do not", "hav": "have", "tho": "though",
    "wen": "when", "bcoz": "because", "becuz": "because", "wud": "would", "cud": "could", "shud": "should",
    "u": "you", "ur": "your", "rn": "right now", "mysf": "myself", "miself": "myself", "urself": "yourself",
    "bc": "because", "cuz": "because", "tmrw": "tomorrow", "tmr": "tomorrow", "tonite": "tonight", "ppl": "people",
    "no1": "no one", "every1": "everyone", "some1": "someone", "any1": "anyone", "b4": "before", "2day": "today",
    "2nite": "tonight", "2moro": "tomorrow", "2morrow": "tomorrow", "h8": "hate", "4ever": "forever",
    "xfa": "por favor", "xfin": "por fin", "mrir": "morir", "mrirme": "morirme", "mtar": "matar", "mtarme": "matarme",
    "smone": "someone", "w": "with", "abt": "about", "anymore": "any more", "nobody": "no one",
}  # fmt: skip
# English words whose h tells them from another word ("hit" from "it", "hate" from "ate"): it is not left out.
H_KEPT = (
    "him his hate hates hated hating hit hits hitting hide hiding harm harms harmed harming heat heating hear hears "
    "heard hold holds holding hole hand hands hair hat hall hill hell ham high"
)
# Words that people half-hide with asterisks ("su*cidio").
HIDDEN = (
    "suicidio", "suicidarme", "suicida", "suicidarse", "suicidal", "suicide", "matarme", "matarse", "matar", "morir",
    "morirme", "muerta", "muerto", "muerte", "cortarme", "violaron", "violo", "die", "dying", "dead", "death", "kill",
    "killing", "rape", "raped", "cutting", "overdose",
)  # fmt: skip
# Words that people write without their vowels ("mrr", "pstlls", "wnt"). Only words with no vowel at all are looked up:
# a single one left already makes another word ("went", "trust").
CORE = (
    "morir morirme matar matarme vivir despertar pastillas cortarme quisiera desaparecer suicidarme suicidio "
    "sentido nunca siempre estoy aguanto tengo muerte triste hermano want wanted myself pills tonight going without "
    "people nothing anymore death cutting tomorrow everything everyone someone never think friend"
)

_CONTRACTED = {"can't": "can not", "won't": "will not", "n't": " not", "'m": " am", "'ve": " have", "'ll": " will"}
_CONTRACTION = re.compile(r"can't\b|won't\b|n't\b|'(?:m|ve|ll)\b")
_CENSORED = re.compile(r"(?<![\w*])[a-z]+\*+[a-z*]*[a-z](?![\w*])")
_SPELLED = re.compile(r"(?<!\w)[a-z]([ .\-_*/|])[a-z](?:\1[a-z]){2,}(?!\w)")
_LEETED = re.compile(r"(?<!\w)(?:[a-z$]|[0-9](?=[a-z]+[0-9$@]))[a-z]*[0-9$@][a-z0-9$@]*")
_PATTERN_PIECE = re.compile(r"\\.|\[[^\]]*\]|[a-z]+")  # escapes and classes are kept, words folded
_TO = re.compile(r"\b(want|wanna|need|going|try|trying|ready|got|how) 2\b")
_REPEATED = re.compile(r"([a-z])\1+")
_TOKEN = re.compile(r'[a-z]+|[0-9]+|[.,"]')


def plain(text: str) -> str:
    """Returns the message as folded words, numbers, commas, quotes and full stops, one space apart."""
    text = _SPELLED.sub(lambda found: found[0].replace(found[1], ""), _letters(text))
    text = _CENSORED.sub(lambda found: _uncensored(found[0]), text)
    text = _LEETED.sub(lambda found: THUMBED.get(found[0]) or found[0].translate(LEET), text)
    text = _TO.sub(r"\1 to", _CONTRACTION.sub(lambda found: _CONTRACTED[found[0]], text).replace("'", ""))
    tokens = _TOKEN.findall(re.sub(r"[.!?;:\n¡¿]+", " . ", text))
    return " ".join(map(_word, tokens))


def fold_pattern(pattern: str) -> str:
    """Returns a pattern of the phrase table with its words folded as `plain` folds them."""
    return _PATTERN_PIECE.sub(lambda piece: piece[0] if piece[0][0] in "\\[" else _word(piece[0]), _bare(pattern))


@lru_cache(maxsize=8192)
def fold(word: str) -> str:
    """Returns a lower-case word with the letters that sound alike made one."""
    if word not in _h_kept():
        word = re.sub(r"(?<![csptgw])h", "", word)
    word = re.sub(r"qu(?=[ei])|q|c(?![eihy])", "k", word)
    word = re.sub(r"c(?=[eiy])", "s", word).replace("z", "s").replace("v", "b")
    return re.sub(r"([a-z])\1+", r"\1", word)


@cache
def _h_kept() -> frozenset[str]:
    return frozenset(H_KEPT.split())


def _letters(text: str) -> str:
    """Returns the text in small Latin letters without accents, look-alikes or invisible characters."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(f" {EMOJI[char]} " if char in EMOJI else char for char in text).lower()
    return _bare(text).translate(LOOKALIKES)


def _bare(text: str) -> str:
    if text.isascii():
        return text
    text = unicodedata.normalize("NFD", text)
    return "".join(char for char in text if unicodedata.category(char) not in ("Mn", "Cf"))


def _uncensored(word: str) -> str:
    shape = re.compile(word.replace("*", "[a-z]"))
    return next((hidden for hidden in HIDDEN if shape.fullmatch(hidden)), word)


@lru_cache(maxsize=8192)
def _word(word: str) -> str:
    # Looked up as typed, but for letters held down: folded, "him" would be read as "im".
    short = _short().get(word) or _short().get(_REPEATED.sub(r"\1", word))
    folded = fold(word)
    return short or _voiceless().get(folded, folded)


@cache
def _short() -> dict[str, str]:
    return {short: " ".join(map(fold, full.split())) for short, full in THUMBED.items()}


@cache
def _voiceless() -> dict[str, str]:
    """Returns the core words by what is left of them without vowels."""
    return {re.sub("[aeiou]", "", fold(word)): fold(word) for word in CORE.split()}
