"""Whether a person asks about a medicine: its dose, mixing it, leaving it, its effects; vaccines and herbs too.

What no model is to answer. Two readers, either of which is enough: rules over words, and likeness to labelled messages
(weights in `data/medicine_weights.npz`, made by `python -m safety.medicine_train`), which sees names and wordings that
no table has. A question that both miss goes to the model, whose answer the guard still checks; what is taken for one
costs a sentence, which sends the person to who knows. Knows nothing of what is shown.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from safety.classifier import BUCKETS, Floats, Ints, pieces_of, vectors
from safety.spelling import fold_pattern, plain

WEIGHTS = Path(__file__).parent.parent / "data" / "medicine_weights.npz"
# Beginnings of words for what is taken or put on, in both languages.
TAKEN = (
    "pastilla pastillita pildora tabletas comprimido capsula jarabe gragea gotas inyeccion parche pomada vacun "
    "inhalador antitetanic antigripal antibiotic anticonceptiv anticoagul antidepres ansiolitic antihist "
    "antiinflam laxante herbs analgesic somnifer tranquiliza corticoid cortison medicament medicacion medicina "
    "dosis recetado prospecto miligramo suplemento insulina melatonin valerian pasiflora hiperico moringa boldo "
    "hierba aspirin nicotina relajante homeopat tablet capsule syrup lozenge ointment inhaler vaccin contracep "
    "painkill steroid medicine medication meds dosage prescri laxative supplement insulin ashwagandha magnesi "
    "turmeric warfarin nicotine herbal anticoag antidep cbd (?:flu|covid|shingles|tetanus|booster)\\s(?:jab|shot) "
    "birth\\scontrol blood\\sthinner beta\\sblock (?:my|the|a|second|next|last|double|extra)\\sdose johns?\\swort "
    "(?:ear|eye)\\sdrop (?:new|nicotine)\\spatch (?:gp|doc|doctor)\\sup+ed recet(?:o|aron) "
    "tom(?:o|e|ar)\\s(?:el\\s)?hierro"
)
# Endings that hardly any word has but the name of a medicine, and names that people say without one.
NAMED = (
    r"\w{2,}(?:zepam|zolam|azepina|etina|etine|tralin[ae]?|pram|prazol|prazole|faxin[ae]|apin[ae]|idon[ae]"
    r"|triptan|zodon[ae]|statina?|sartan|cillin|cilina|micina|mycin|formina?|profeno?|dipin[oe]|olol|tiroxina"
    r"|thyroxine|[nd]azole?|madol|gabalina?|cetamol|minofen[oe]?|minophen|trexat[oe]?|tadine|tadina)(?:e?s)?"
    r"|litio|lithium|pills?|pastis?|\d+ ?mg|mg|clona|rivotril|orfidal|lexatin|trankimazin|prozac|zoloft"
    r"|lexapro|xanax|valium|ativan|ambien|ritalin|adderall|benadryl|nytol|ozempic|nolotil|dolex|advil|tylenol"
    r"|buscapina"
)
# What is done with it, where it has no name any more: "¿la dejo?", "do I double up".
DONE = (
    r"dejo|dejar\w*|tom(?:o|ar\w*|arme\w*)|cort(?:o|ar\w*)|retom\w+|mezcl\w+|subir\w*|bajar\w*|partir\w*|salto"
    r"|inyect\w+|stop|quit|take|taking|mix|skip|double|halve|come off|combine"
)
ASKED = (
    r"pued[oae]s?|podria|debo|deberia|tengo que|hay que|sirven?|pasa algo|que pasa|hace dano|es mal[oa]"
    r"|es mucho|si o no|cuant[oa]s?|cual|que hago|como le hago|que tal|que hora|que tomo|dejo|corto|retomo"
    r"|quiero saber|caduc\w+|vencio|vencid[oa]s?|sera (?:por|que)|o (?:mejor )?no|es buen[oa]|can|could|should"
    r"|shall|do i|do they|does|may i|is (?:it|that|this)|are there|allowed|safe|what happens|what do"
    r"|how (?:much|many|long|soon)|when|which|yes or no|or (?:not|wait|what|carry)|ok to|wondering|the most"
    r"|still ok|same thing"
)
# Asked whole, without a name: what to take.
WHOLE = (
    r"que (?:(?:me|le|se) )?(?:pued[oe] )?(?:tomo|tomar(?:me|le)?) (?:para|pa|por)|what (?:should|can|do) i take for"
)
# The tablet that a person writes on.
NOT_TAKEN = r"(?:mi|la|su|tu|una|misma|compartimos|my|the|this|her|his|a|on|share) tableta?s?"


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9])(?:{fold_pattern(words)})(?![a-z0-9])")


_WORD = _pattern(rf"(?:{'|'.join(TAKEN.split())})\w*|{NAMED}".replace(r"\s", " "))
_DONE, _ASKED, _WHOLE, _OTHER = map(_pattern, (DONE, ASKED, WHOLE, NOT_TAKEN))


def asks_about_medicine(messages: Sequence[str]) -> bool:
    """Returns whether the last of a person's messages asks about a medicine, named in it or in the one before.

    Raises:
        FileNotFoundError: where `data/medicine_weights.npz` is missing.
    """
    return by_rules(*messages[-2:]) or _is_like(messages[-1])


def by_rules(*messages: str) -> bool:
    """Returns whether the last of one or two messages asks, by the words of the tables above."""
    *earlier, last = (_OTHER.sub(" ", plain(message)) for message in messages)
    if _WHOLE.search(last):
        return True
    if "?" not in messages[-1] and not _ASKED.search(last):
        return False
    return bool(_WORD.search(last) or (_DONE.search(last) and any(map(_WORD.search, earlier))))


def _is_like(message: str) -> bool:
    """Tells whether a message has in common with questions about medicines what others have not."""
    rows, scale, weights, limit = _trained()
    said = plain(message)
    ids, values = vectors([pieces_of(said)], rows, scale)[0]
    # Marks alone are like a question, for questions end in them.
    return any(map(str.isalpha, said)) and float(values @ weights[ids]) > limit


@cache
def _trained() -> tuple[Ints, Floats, Floats, float]:
    """Returns where each bucket's row is, per row what it counts for and its weight, and the limit of their sum."""
    with np.load(WEIGHTS, allow_pickle=False) as file:
        rows = np.full(BUCKETS, -1, np.int64)
        rows[file["buckets"]] = np.arange(len(file["buckets"]))
        return rows, file["scale"].astype(np.float64), file["weights"].astype(np.float64), float(file["limit"])
