"""The filter language: ``street !car cat:object,scene iou>0.1 unit:100-200 layer:layer4 class:street dead``.

Terms are separated by spaces, and a row passes if it passes all of them:

    word            the row's text holds it, without case; "two words" in quotes
    cat:object      the category is called so, or if none is begins so; with commas any of several; layer:layer4
                    likewise; * and ? stand for any letters, or one
    iou>0.1         a number compared, by > >= < <= =
    unit:100-200    a number or a range of them; with commas any of several
    class:street    the class needs the unit (the whole interval of its change without the unit lies below 0), or is
                    among the few that the unit speaks for; a name or a part of it, with commas any of several
    effect<-0.02    the change of balanced accuracy without the unit: of any class of ``class:`` where the filter has
                    one, which then only names the classes; else the lowest of all classes
    dead            a property: dead, marked, detector, significant
    !term           not the term
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from ndissect.store.errors import WrongUse
from ndissect.tui.tables.class_names import match_classes
from ndissect.tui.tables.columns import BY_WORD
from ndissect.tui.tables.units import Texts

Bools = npt.NDArray[np.bool_]

# What may be asked for, whatever is listed: a name that is none of these is a mistake, not a word. Of numbers those of
# several listings first, then those of units alone.
_OF_SEVERAL = ("iou", "unit", "threshold", "units", "detectors", "images", "peak")
NUMBERS = tuple(dict.fromkeys((*_OF_SEVERAL, *(word for word, column in BY_WORD.items() if column.right), "effect")))
CHOICES = ("cat", "layer")
CLASS = "class"
FLAGS = ("dead", "marked", "detector", "significant")
_LONGER = {"category": "cat", "u": "unit"}

_COMPARE: dict[str, Callable[..., Bools]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_TERM = re.compile(r'\s*(?P<negative>!?)(?P<body>(?:"[^"]*"?|\S)+)')
_COMPARISON = re.compile(r"(?P<name>[a-z_]+)(?P<sign>>=|<=|>|<|=)(?P<value>.*)", re.IGNORECASE)
_UNEQUAL = re.compile("[a-z_]+!=", re.IGNORECASE)
_CHOICE = re.compile(r"(?P<name>[a-z]+):(?P<value>.*)", re.IGNORECASE | re.DOTALL)
_NAMES = re.compile('"[^"]*"?|[^,]+')
_RANGE = re.compile(r"(?P<first>\d*\.?\d*)(?P<dash>-?)(?P<last>\d*\.?\d*)")


def texts(strings: list[str]) -> Texts:
    """One text a row."""
    return Texts(tuple(strings), np.arange(len(strings)))


@dataclass(frozen=True)
class ClassFields:
    """What filters know of the K classes that ``names`` names.

    ``effect(classes)`` gives (rows, n) float64, the change of the balanced accuracy of each of these classes without
    the row's unit, NaN where it is unknown; ``tied(classes)`` (rows, n) bool: whether the class needs the unit, or the
    unit speaks for it.
    """

    names: tuple[str, ...]
    effect: Callable[[Sequence[int]], npt.NDArray[np.float64]]
    tied: Callable[[Sequence[int]], Bools]


@dataclass(frozen=True)
class Fields:
    """What a listing offers to filters: texts that words are looked for in, and its numbers, choices and flags.

    ``classes``: what its units do to classes, None where that is not known. Of numbers with several columns a row
    passes where any does.
    """

    words: tuple[Texts, ...] = ()
    numbers: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    choices: Mapping[str, Texts] = field(default_factory=dict)
    flags: Mapping[str, Callable[[], Bools]] = field(default_factory=dict)
    classes: ClassFields | None = None

    def of(self, classes: Sequence[int]) -> Fields:
        """The same, with the effects on these classes alone."""
        assert self.classes is not None
        return replace(self, numbers={**self.numbers, "effect": self.classes.effect(classes)})


class Mistake(ValueError):
    """A filter that makes no sense; ``at`` is where in the text."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.what = what
        self.at = at


@dataclass(frozen=True)
class Term:
    """One term: ``test`` gives the rows that pass it before ``negative`` turns it around.

    ``name``: what it asks for, "" for words and properties; ``classes``: those of a term ``class:``.
    """

    test: Callable[[Fields, int], Bools]
    negative: bool
    at: int
    name: str = ""
    classes: Callable[[Fields], list[int]] | None = None


@dataclass(frozen=True)
class Query:
    """A filter that was understood; ``text`` as it was typed."""

    text: str
    terms: tuple[Term, ...]

    def passes(self, fields: Fields, count: int) -> Bools:
        """(count,) bool: the rows that pass every term. Raises Mistake for a field that this listing has not."""
        kept = np.ones(count, bool)
        asks_effect = any(term.name == "effect" for term in self.terms)
        of_classes = [t for t in self.terms if t.classes is not None and not t.negative] if asks_effect else []
        narrowed = [self._narrowed(fields, term) for term in of_classes] or [fields]
        for term in self.terms:
            try:
                if term.name == "effect":
                    kept &= np.all([term.test(some, count) != term.negative for some in narrowed], axis=0)
                elif term not in of_classes:
                    kept &= term.test(fields, count) != term.negative
            except LookupError as e:
                raise Mistake(str(e.args[0]), term.at) from None
        return kept

    @staticmethod
    def _narrowed(fields: Fields, term: Term) -> Fields:
        """``fields`` with the effects on the classes of ``term``; Mistake where there are none such."""
        assert term.classes is not None
        try:
            return fields.of(term.classes(fields))
        except LookupError as e:
            raise Mistake(str(e.args[0]), term.at) from None


EVERYTHING = Query("", ())


def parse(text: str, *, typing: bool = False) -> Query:
    """The filter that ``text`` says; Mistake where it says none.

    While it is ``typing``, a name at its end that asks for something to follow, such as iou, is no word yet.
    """
    terms = []
    for match in _TERM.finditer(text):
        at, body = match.start("body"), match["body"]
        if body == "!" or (match["negative"] and not body.strip('"')):
            raise Mistake("! needs a term after it", at)
        if not body.strip('"'):
            continue  # a quote that was just opened
        if typing and match.end() == len(text) and body.lower() in (*NUMBERS, *CHOICES, *_LONGER, CLASS):
            continue
        name = _name(body)
        classes = _classes(body, at) if name == CLASS and ":" in body else None
        test = _tied(classes) if classes else _test(body, at)
        terms.append(Term(test, bool(match["negative"]), at, name, classes))
    return Query(text, tuple(terms))


def _name(body: str) -> str:
    """The name of the number or choice that a term asks for, "" for other terms."""
    match = _COMPARISON.fullmatch(body) or _CHOICE.fullmatch(body)
    name = match["name"].lower() if match else ""
    return _LONGER.get(name, name)


def _test(body: str, at: int) -> Callable[[Fields, int], Bools]:
    if body.startswith('"'):
        return _word(body.strip('"'))
    if body[0] in "<>=:!":
        raise Mistake(f"no space before {body[0]}: write iou>0.1, cat:object, !car; quotes make it a word", at)
    if _UNEQUAL.match(body):
        raise Mistake(f"there is no !=; write !{body.replace('!=', '=', 1)}", at)
    comparison = _COMPARISON.fullmatch(body)
    if comparison:
        return _comparison(comparison, at)
    choice = _CHOICE.fullmatch(body)
    if choice:
        name = _LONGER.get(choice["name"].lower(), choice["name"].lower())
        if name in CHOICES:
            return _choice(name, choice["value"], at)
        if name in NUMBERS:
            return _numbers(name, choice["value"], at + choice.start("value"))
        known = ", ".join(f"{n}:" for n in (*CHOICES, *NUMBERS, CLASS))
        raise Mistake(f"there is no {choice['name']}: but {known}; quotes make it a word", at)
    if body.lower() in FLAGS:
        return _flag(body.lower())
    return _word(body.replace('"', ""))


def _word(word: str) -> Callable[[Fields, int], Bools]:
    wanted = word.casefold()

    def test(fields: Fields, count: int) -> Bools:
        holds = np.zeros(count, bool)
        for some in fields.words:
            holds |= some.where(lambda s: wanted in s)
        return holds

    return test


def _flag(name: str) -> Callable[[Fields, int], Bools]:
    def test(fields: Fields, count: int) -> Bools:
        if name not in fields.flags:
            raise LookupError(f'whether a row is {name} is not known here; in quotes, "{name}" is a word')
        return fields.flags[name]()

    return test


def _choice(name: str, value: str, at: int) -> Callable[[Fields, int], Bools]:
    wanted = [v.strip('"').casefold() for v in value.split(",") if v.strip('"')]
    if not wanted:
        raise Mistake(f"{name}: needs a name after it", at)

    def matches(text: str, pattern: str) -> bool:
        if not any(c in pattern for c in "*?"):
            return text.startswith(pattern)
        return fnmatchcase(text, pattern.replace("[", "[[]"))  # brackets in layers' names are no patterns

    def test(fields: Fields, count: int) -> Bools:
        if name not in fields.choices:
            raise LookupError(f"rows have no {name} here")
        known = fields.choices[name]
        names = {s.casefold() for s in known.strings}
        for pattern in wanted:
            if not any(matches(s, pattern) for s in names):
                listed = ", ".join(sorted({s for s in known.strings if s})[:8])
                raise LookupError(f"no {name} begins with {pattern}; there is {listed}")
        return known.where(lambda s: any(s == p if p in names else matches(s, p) for p in wanted))

    return test


def _classes(body: str, at: int) -> Callable[[Fields], list[int]]:
    """What finds the classes that ``class:street,kitchen`` names; Mistake where it names none."""
    wanted = [name.strip('"') for name in _NAMES.findall(body.partition(":")[2]) if name.strip('" ')]
    if not wanted:
        raise Mistake("class: needs a name after it", at)

    def find(fields: Fields) -> list[int]:
        if fields.classes is None:
            raise LookupError("rows have no class here; nd ablate LAYER tells what units do to classes")
        classes: list[int] = []
        for name in wanted:
            try:
                classes += match_classes(fields.classes.names, name)
            except WrongUse:
                listed = ", ".join(sorted(fields.classes.names)[:8])
                raise LookupError(f"no class matches {name}; there is {listed}") from None
        return list(dict.fromkeys(classes))

    return find


def _tied(classes: Callable[[Fields], list[int]]) -> Callable[[Fields, int], Bools]:
    def test(fields: Fields, _: int) -> Bools:
        chosen = classes(fields)
        assert fields.classes is not None
        return np.asarray(fields.classes.tied(chosen).any(1))

    return test


def _any(passes: Bools) -> Bools:
    """(rows,): of several columns a row passes where any does."""
    return passes if passes.ndim == 1 else np.asarray(passes.any(1))


def _number_field(fields: Fields, name: str) -> npt.NDArray[np.float64]:
    if name not in fields.numbers:
        known = ", ".join(fields.numbers) or "no numbers"
        raise LookupError(f"rows have no {name} here, but {known}")
    return fields.numbers[name]


def _comparison(match: re.Match[str], at: int) -> Callable[[Fields, int], Bools]:
    name = _LONGER.get(match["name"].lower(), match["name"].lower())
    if name not in NUMBERS:
        raise Mistake(f"there is no number {match['name']}, but {', '.join(NUMBERS)}; quotes make it a word", at)
    try:
        value = float(match["value"])
    except ValueError:
        raise Mistake(f"{name}{match['sign']} needs a number after it", at + match.start("value")) from None
    compare = _COMPARE[match["sign"]]
    return lambda fields, _: _any(compare(_number_field(fields, name), value))


def _numbers(name: str, text: str, at: int) -> Callable[[Fields, int], Bools]:
    spans = []
    for part in text.split(","):
        span = _RANGE.fullmatch(part)
        if not span or not any(c.isdigit() for c in part) or "." in (span["first"], span["last"]):
            raise Mistake(f"{name}: needs numbers after it, such as {name}:7 or {name}:100-200", at)
        first = float(span["first"] or "-inf")
        last = float(span["last"]) if span["last"] else np.inf if span["dash"] else first
        if first > last:
            raise Mistake(f"{name}:{part} ends before it begins", at)
        spans.append((first, last))

    def test(fields: Fields, count: int) -> Bools:
        values = _number_field(fields, name)
        kept = np.zeros(count, bool)
        for first, last in spans:
            kept |= _any((values >= first) & (values <= last))
        return kept

    return test
