"""Constraints over nodes: what they mean, their canonical form, and how a mistake is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasched.model.constraints import (
    ATTRIBUTES,
    ConstraintError,
    Every,
    Expression,
    Kind,
    Not,
    Some,
    Term,
    canonical,
    compile_constraint,
    parse,
    version_key,
    write,
)
from hasched.model.facts import GpuClass, NodeFacts, gpu_class_of, is_model, sort_gpus
from hasched.model.spec import Resources
from hasched.model.wire import GpuDevice

GIB = 2**30
NODE = NodeFacts(
    node_id="n1",
    hostname="rack1-07",
    pool="batch",
    labels={"rack": "r1", "ssd": "", "zone": "west, upper"},
    attributes={"arch": "amd64", "kernel": "5.15.0-91-generic", "interconnect": "infiniband,100GbE", "slot": "9"},
    total=Resources(cpu_milli=16_000, memory_bytes=64 * GIB, gpus=6),
    gpus=(GpuClass("NVIDIA A100-SXM4-80GB", 80 * GIB, 2), GpuClass("Tesla T4", 16 * GIB, 4)),
)


@pytest.mark.parametrize(
    "text",
    [
        "arch == amd64",
        "attr.arch == amd64",
        "attr.slot == 9",
        "arch != arm64",
        "kernel >= 5.15",
        "kernel > 5.9",
        "kernel < 5.15.1",
        "hostname matches rack1-*",
        "label.rack matches 'r[12]'",
        "has label.ssd and not has label.hdd",
        "label.zone == 'west, upper'",
        "label.rack in [r2, r1]",
        "label.rack not in [r2, r3]",
        "label.shelf != 4",
        "not label.shelf == 4",
        "interconnect == 100GbE and interconnect == infiniband",
        "gpu.model == a100",
        "gpu.model in [H100, T4]",
        "gpu.model == 'A100 80GB'",
        "gpu.model != H100",
        "gpu.memory >= 80Gi and gpu.memory == 16Gi",
        "gpu.count > 5 and cpus == 16 and memory >= 64Gi",
        "pool == batch or pool == nowhere and pool == neither",
        "(pool == batch or pool == nowhere) and not (node == n2 or node == n3)",
    ],
)
def test_what_holds(text: str) -> None:
    assert compile_constraint(text)(NODE)
    assert not compile_constraint(f"not ({text})")(NODE)


@pytest.mark.parametrize(
    "text",
    [
        "label.shelf == 4",
        "label.shelf >= 4",
        "has label.shelf",
        "arch matches arm*",
        "gpu.model == A10",
        "gpu.model == 'SXM4 A100'",
        "gpu.memory > 80Gi",
        "disk >= 1",
        "kernel >= 5.15.1",
        "(pool == batch or pool == nowhere) and pool == neither",
    ],
)
def test_what_does_not_hold(text: str) -> None:
    assert not compile_constraint(text)(NODE)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("arch==amd64  and kernel>=5.15", "arch == amd64 and kernel >= 5.15"),
        ("attr.kernel == '6.1'", "kernel == 6.1"),
        ("not not has label.ssd", "has label.ssd"),
        ('label.a in ["x y",b , b]', 'label.a in ["x y", b]'),
        ("((pool == a)) or pool == b", "pool == a or pool == b"),
        ("not (pool == a and pool == b)", "not (pool == a and pool == b)"),
    ],
)
def test_there_is_one_form(text: str, form: str) -> None:
    assert canonical(text) == form


@pytest.mark.parametrize(
    ("text", "place", "cause", "hint"),
    [
        ("kernle >= 3", 1, "unknown attribute 'kernle'", "did you mean 'kernel'?"),
        ("rack == r1", 1, "unknown attribute 'rack'", "a label is written label.rack, one of your own attr.rack"),
        ("arch = amd64", 6, "an operator must follow 'arch', not '='", "equality is written =="),
        ("arch matche a*", 6, "an operator must follow 'arch', not 'matche'", "did you mean 'matches'?"),
        ("arch ==", 8, "a value must follow '==', not 'the end'", ""),
        ("arch == [a, b]", 9, "a value must follow '==', not '['", "use `in` with a list"),
        ("label.rack in r1", 15, "'[' must stand here, not 'r1'", ""),
        ("label.rack in [r1", 18, "']' must stand here, not 'the end'", ""),
        ("(arch == a", 11, "')' must stand here, not 'the end'", ""),
        ("arch == a pool == b", 11, "'pool' follows a whole constraint", "join two by `and` or `or`"),
        ("label.-x == 1", 1, "'-x' can't be the name of a label or attribute", ""),
        ("cpus >= 1.5", 9, "cpus is a number: '1.5' is not a whole number", ""),
        ("gpu.memory == 80Qi", 15, "gpu.memory is a size: '80Qi' is not a size", ""),
        ("gpu.model >= A100", 14, "gpu.model has no order", ""),
        ("memory matches 6*", 16, "memory is a size: compare it by ==, <, >=", ""),
        ("arch == a!", 10, "'!' can't stand here", "write a text that contains it in quotes"),
        ("and", 1, "an attribute must stand here, not 'and'", "attributes are node,"),
        ("hostname matches " + "*a" * 9, 18, "has more than 8 stars", ""),
        ("not " * 30 + "has label.a", 81, "it is nested too deeply", ""),
        ("has label.a\n", 1, "it contains a character that can't be printed", ""),
        ("has label." + "a" * 2000, 1024, "it is longer than 1024 characters", ""),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, place: int, cause: str, hint: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        parse(text)
    assert caught.value.place == place
    assert cause in str(caught.value)
    assert hint in caught.value.hint


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"'), max_size=6)
NAMES = st.sampled_from(["arch", "pool", "kernel", "label.rack", "attr.x", "label.a-b"])
TESTS = st.one_of(
    st.builds(Term, NAMES, st.just("has"), st.just(())),
    st.builds(Term, NAMES, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), st.tuples(TEXTS)),
    st.builds(Term, NAMES, st.sampled_from(["in", "not in"]), st.lists(TEXTS, min_size=1, unique=True).map(tuple)),
    st.builds(Term, st.just("gpu.memory"), st.just(">="), st.sampled_from([("80Gi",), ("1024",)])),
)


def _joined(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        parts.map(lambda part: part.part if isinstance(part, Not) else Not(part)),
        several.map(Every),
        several.map(Some),
    )


EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(TESTS, _joined, max_leaves=6)


@given(EXPRESSIONS)
def test_what_is_written_is_read_as_the_same(expression: Expression) -> None:
    assert parse(write(expression)) == expression


@given(
    st.text(max_size=40) | st.lists(st.sampled_from("and or not ( ) has label.a == in [ ] , x 5".split())).map(" ".join)
)
def test_no_text_brings_anything_but_a_constraint_or_its_mistake(text: str) -> None:
    try:
        form = canonical(text)
    except ConstraintError as error:
        assert 1 <= error.place <= len(text) + 1
    else:
        assert canonical(form) == form
        compile_constraint(form)(NODE)


def _holds(expression: Expression, facts: NodeFacts) -> bool:
    """The meaning, as plainly as it can be said."""
    match expression:
        case Not(part):
            return not _holds(part, facts)
        case Every(parts):
            return all(_holds(part, facts) for part in parts)
        case Some(parts):
            return any(_holds(part, facts) for part in parts)
        case Term(attribute, operator, values):
            prefix, _, own = attribute.partition(".")
            table = facts.labels if prefix == "label" else facts.attributes
            found = facts.pool if attribute == "pool" else table.get(own if prefix in ("label", "attr") else attribute)
            if operator in ("!=", "not in"):
                return found not in values
            if found is None:
                return False
            if operator in ("has", "==", "in"):
                return operator == "has" or found in values
            left, right = version_key(found), version_key(values[0])
            return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]


PLAIN = st.recursive(TESTS.filter(lambda term: term.attribute != "gpu.memory"), _joined, max_leaves=6)
WORDS = TEXTS.filter(lambda text: "," not in text)  # commas part the values of an attribute
FACTS = st.builds(
    NodeFacts,
    st.just("n1"),
    pool=st.sampled_from(["a", "5"]),
    labels=st.dictionaries(st.sampled_from(["rack", "a-b"]), WORDS),
    attributes=st.dictionaries(st.sampled_from(["arch", "kernel", "x"]), WORDS),
)


@given(PLAIN, FACTS)
def test_closures_mean_what_the_expression_says(expression: Expression, facts: NodeFacts) -> None:
    assert compile_constraint(write(expression))(facts) is _holds(expression, facts)


def test_every_attribute_can_be_asked_for() -> None:
    for name, (kind, about) in ATTRIBUTES.items():
        assert about
        compile_constraint(f"{name} == {5 if kind in (Kind.NUMBER, Kind.SIZE) else 'x'}")(NODE)


def test_versions_are_in_the_order_of_their_numbers() -> None:
    ordered = ["1.0rc1", "1.0", "5.9", "5.15", "5.15.0-91-generic", "5.15.1", "6.0.1", "6.1", "6.1.1-rt", "6.1.1.1"]
    assert sorted(set(ordered), key=version_key) == ordered
    assert version_key("6.1") == version_key("6.1.0")


def test_gpus_of_several_models_are_kinds_the_largest_memory_first() -> None:
    small, large = GpuDevice("u1", "Tesla T4", 16 * GIB), GpuDevice("u2", "NVIDIA A100-SXM4-40GB", 40 * GIB)
    kinds = sort_gpus([small, large, small], 4)
    assert [(kind.model, kind.number) for kind in kinds] == [("NVIDIA A100-SXM4-40GB", 1), ("Tesla T4", 2), ("", 1)]
    assert gpu_class_of(kinds, Resources(gpus=1)) == 0
    assert gpu_class_of(kinds, Resources(gpus=2)) == 1
    assert gpu_class_of(kinds, Resources(gpus=2, gpu_models=("A100",))) == -1
    assert gpu_class_of(kinds, Resources(gpus=1, gpu_models=("H100", "T4"))) == 1
    assert gpu_class_of(kinds, Resources(gpus=1, gpu_memory_bytes=41 * GIB)) == -1


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [("a100", True), ("A100-40GB", True), ("NVIDIA A100", True), ("A10", False), ("40GB A100", False), ("-", False)],
)
def test_a_model_is_meant_by_words_of_its_name(asked: str, verdict: bool) -> None:
    assert is_model("NVIDIA A100-SXM4-40GB", asked) is verdict
