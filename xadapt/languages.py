"""The forty languages of XTREME: one row each, with family, branch, script and presence in XLM-R's pre-training."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xadapt.errors import UserError, unknown


@dataclass(frozen=True)
class Language:
    """One language: ISO 639-1 code as XTREME uses it, English name, ISO 639-3 code as Tatoeba uses it.

    family and branch follow Hu et al. 2020, table 1 (branch is empty where the family needs none); script is
    an ISO 15924 code; seen_in_pretraining says whether CC-100, XLM-R's pre-training corpus, has it.
    """

    code: str
    name: str
    iso3: str
    family: str
    branch: str
    script: str
    seen_in_pretraining: bool = True


_TABLE = """
af|Afrikaans|afr|Indo-European|Germanic|Latn
ar|Arabic|ara|Afro-Asiatic||Arab
bg|Bulgarian|bul|Indo-European|Slavic|Cyrl
bn|Bengali|ben|Indo-European|Indo-Aryan|Beng
de|German|deu|Indo-European|Germanic|Latn
el|Greek|ell|Indo-European|Greek|Grek
en|English|eng|Indo-European|Germanic|Latn
es|Spanish|spa|Indo-European|Romance|Latn
et|Estonian|est|Uralic||Latn
eu|Basque|eus|Basque||Latn
fa|Persian|pes|Indo-European|Iranian|Arab
fi|Finnish|fin|Uralic||Latn
fr|French|fra|Indo-European|Romance|Latn
he|Hebrew|heb|Afro-Asiatic||Hebr
hi|Hindi|hin|Indo-European|Indo-Aryan|Deva
hu|Hungarian|hun|Uralic||Latn
id|Indonesian|ind|Austronesian||Latn
it|Italian|ita|Indo-European|Romance|Latn
ja|Japanese|jpn|Japonic||Jpan
jv|Javanese|jav|Austronesian||Latn
ka|Georgian|kat|Kartvelian||Geor
kk|Kazakh|kaz|Turkic||Cyrl
ko|Korean|kor|Koreanic||Kore
ml|Malayalam|mal|Dravidian||Mlym
mr|Marathi|mar|Indo-European|Indo-Aryan|Deva
ms|Malay|zsm|Austronesian||Latn
my|Burmese|mya|Sino-Tibetan||Mymr
nl|Dutch|nld|Indo-European|Germanic|Latn
pt|Portuguese|por|Indo-European|Romance|Latn
ru|Russian|rus|Indo-European|Slavic|Cyrl
sw|Swahili|swh|Niger-Congo||Latn
ta|Tamil|tam|Dravidian||Taml
te|Telugu|tel|Dravidian||Telu
th|Thai|tha|Kra-Dai||Thai
tl|Tagalog|tgl|Austronesian||Latn
tr|Turkish|tur|Turkic||Latn
ur|Urdu|urd|Indo-European|Indo-Aryan|Arab
vi|Vietnamese|vie|Austro-Asiatic||Latn
yo|Yoruba|yor|Niger-Congo||Latn|unseen
zh|Chinese|cmn|Sino-Tibetan||Hans
"""


def _parse(line: str) -> Language:
    code, name, iso3, family, branch, script, *unseen = line.split("|")
    return Language(code, name, iso3, family, branch, script, seen_in_pretraining=not unseen)


_CODE = re.compile("[A-Za-z]{2,3}")
LANGUAGES: dict[str, Language] = {row.code: row for row in map(_parse, _TABLE.strip().splitlines())}


_FORTY = frozenset(LANGUAGES.values())


def get_language(code: str, *, place: str = "--languages") -> Language:
    """The language with this code; raises UserError with the nearest code if there is none."""
    if code not in LANGUAGES:
        spelled = {name.lower(): known.code for known in LANGUAGES.values() for name in (known.name, known.iso3)}
        if code.lower() in spelled:
            raise UserError(f"unknown language '{code}' in {place}: give its code, '{spelled[code.lower()]}'")
        # another language's code is no slip of the pen, however near one of the table's is; a letter too many may be one
        other = _CODE.fullmatch(code) is not None and code.lower() not in LANGUAGES
        what = "It may be the code of a language outside the table, which" if other else "A language outside the table"
        remedy = f"{what} a task file describes under own_languages."
        raise unknown(
            "language", code, LANGUAGES, place=place, guess=not other or code[:2].lower() in LANGUAGES, remedy=remedy
        )
    return LANGUAGES[code]


def add_language(language: Language) -> None:
    """Make a language outside the forty known to this process; UserError if its code is one of theirs."""
    known = LANGUAGES.get(language.code)
    if known in _FORTY and known != language:
        raise UserError(f"own_languages: '{language.code}' is {known.name} already; use it as it is, or another code")
    LANGUAGES[language.code] = language


def by_family(codes: Iterable[str]) -> dict[str, list[str]]:
    """Group codes by family: families with most languages first, then by name; codes keep their order."""
    groups: dict[str, list[str]] = {}
    for code in codes:
        groups.setdefault(get_language(code).family, []).append(code)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def english_first(codes: Sequence[str]) -> list[str]:
    """The codes sorted, English in front: the order of every table."""
    return sorted(codes, key=lambda code: (code != "en", code))
