"""Hard words that the model may say of a person only after that person has: that they are trash, stupid, ugly.

Who says "soy una basura" may hear that they feel so. A model that takes one message for another must not be the first.
Knows the person's words and one sentence, and nothing of what is shown instead.
"""

import re

from safety.conduct import normal

_OF_YOU = (
    r"(?:eres|sos|seas|fuiste|usted es|es usted|(?:te|se) (?:siente|ve)s?|das?|you are|you were|you feel|you look)"
    r"(?: (?:un|una|muy|tan|mas|bien|como|que|de|lo|pura|puro|a|an|so|such|like|really|very|just|total|piece|of))*"
)
_HARD = (
    r"basura|escoria|mierda|porqueria|asco|asqueros|estupid|imbecil|idiota|tont[oa]|fe[oa]\b|gord[oa]|patetic|repugnan|"
    r"monstruo|trash|garbage|rubbish|scum|stupid|idiot|ugly|fat\b|disgust|pathetic|monster"
)
_CONTEMPT = re.compile(rf"(?<! no)(?<! not) {_OF_YOU} (?P<word>{_HARD})")


def is_first_to_say(sentence: str, heard: str) -> bool:
    """Tells whether a sentence calls the person something hard that is not in what was heard of them."""
    known = normal(heard)
    return any(found["word"][:-1] not in known for found in _CONTEMPT.finditer(normal(sentence)))
