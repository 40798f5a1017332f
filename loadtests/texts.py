"""Texts of a known number of tokens that never repeat, so that no cache can answer for a model."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["WORDS", "texts"]

# Each is one token to BERT's WordPiece vocabulary; tests/loadtests asks the tokenizer.
WORDS = tuple(
    """
    about above across action address after again against age agreement air almost alone along
    already also although always among amount animal answer apple area army around arrive art
    aspect attention author autumn away baby back ball bank base beach bear beautiful because
    become before begin behind believe below beside best better between bird black blood blue
    board boat body book border both bottle bottom box boy branch bread break bridge bright
    bring broad brother brown build building burn business call camp capital captain car care
    carry case castle cat catch cause center century certain chain chair change chapter
    character charge chief child choice church circle city claim class clean clear climb clock
    close cloud coast coffee cold collect college color column come common company complete
    computer condition contain continue control corner cost cotton country course court cover
    create cross crowd culture current dance danger dark daughter day dead deal death decide
    deep degree desert design desk detail develop difference dinner direct distance doctor door
    double doubt down dream dress drink drive dry during dust duty each early earth east easy
    edge effect effort egg eight either election electric empty end enemy engine enough enter
    equal evening event every example exchange exercise eye face fact factory fall family famous
    far farm father fear feel few field figure film final find fine finger fire fish five floor
    flow flower follow food foot force foreign forest form forward four free fresh friend front
    fruit full future game garden gas gate general gift girl give glass goal gold good
    government grass gray great green ground group grow guard guest guide hair half hall hand
    harbor hard head health hear heart heat heavy height help high hill history hold hole home
    hope horse hospital hot hotel hour house human hundred ice idea image important inch income
    increase industry inside interest iron island join journey judge kind king kitchen knowledge
    lake land language large last late laugh law lead leaf learn left leg lesson letter level
    library life light line list little local long look lord loss loud love machine main manner
    market master match material matter meaning measure meat medicine meeting member memory
    message metal method middle mile milk million mind mine minute mirror model modern moment
    money month moon morning mother mountain mouth move museum music name narrow nation nature
    near neck network never new news night nine noise north nose note nothing number object
    ocean office oil old open opinion orange order organ other outside page paint pair palace
    paper parent park part party past path peace people perhaps period person phone picture
    piece place plain plan plane plant plate play pleasure poem point police poor popular port
    position possible power present president press price print prison prize problem process
    produce program promise proof property public purpose quality question quick quiet radio
    rain range rate reach read ready real reason record red region relation remember report rest
    result return rich ride right ring river road rock role roof room root rose round rule safe
    salt same sand scale school science sea season seat second secret section see seed sense
    series service seven shade shadow shape share sharp sheep ship shop shore short shoulder
    show side sign signal silver simple single sister size skill skin sky sleep slow small smile
    smoke smooth snow social society soft soil soldier solid some son song soon sound source
    south space special speech speed spirit spring square stage station steel step stone stop
    store storm story straight strange stream street strong student study style subject sudden
    sugar summer sun support surface surprise sweet swim system table talk tall taste teacher
    team ten test theory thick thin thing think third thought thousand three through thunder
    time title today together tomorrow tool top touch tour tower town trade train travel tree
    trial trip trouble truth turn twenty two uncle under union unit university until upper usual
    valley value very view village visit voice voyage wait walk wall war warm watch water wave
    way weather week weight west wheel white whole wide wild wind window wine winter wire wish
    woman wonder wood word work world worth write year yellow yesterday young
    """.split()  # noqa: SIM905 - a list of seven hundred literals reads worse
)
_SPECIAL_TOKENS = 2  # [CLS] and [SEP]


def texts(tokens: int, seed: int) -> Iterator[str]:
    """Texts of `tokens` tokens each, special ones included; a seed always gives the same ones."""
    chance = random.Random(seed)
    while True:
        yield " ".join(chance.choices(WORDS, k=tokens - _SPECIAL_TOKENS))
