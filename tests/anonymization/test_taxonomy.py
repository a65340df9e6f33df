"""The taxonomy refuses what it cannot mean."""

import pytest

from anonymization.taxonomy import ClassSpec, Taxonomy, TaxonomyError

BOX = ClassSpec(geometry="box", shape="box", identifiable_side="height", identifiable_px=12)


def test_it_survives_json() -> None:
    taxonomy = Taxonomy({"license_plate": BOX, "dog": ClassSpec("mask", "outline", gated=False)})
    assert Taxonomy.from_dict(taxonomy.to_dict()) == taxonomy
    assert taxonomy.gated == ("license_plate",)


def test_an_alias_means_its_class() -> None:
    taxonomy = Taxonomy({"vehicle": ClassSpec("mask", "outline", aliases=["car", "bus"])})
    assert [taxonomy.resolve(x) for x in ("car", "vehicle", "tram")] == ["vehicle", "vehicle", None]


@pytest.mark.parametrize(
    ("height", "expected"), [(11.9, False), (12, True)], ids=["below", "at the line"]
)
def test_identifiable_is_a_size_rule_of_one_side(height: float, expected: bool) -> None:
    assert BOX.is_identifiable(500, height) is expected


def test_unknown_words_are_refused_by_name() -> None:
    with pytest.raises(TaxonomyError, match="shape is 'round'; expected one of outline, box"):
        ClassSpec(geometry="box", shape="round")
    with pytest.raises(TaxonomyError, match="head_class is 'head'"):
        Taxonomy({"face": BOX}, head_class="head")
    with pytest.raises(TaxonomyError, match="means both face and person"):
        Taxonomy({"face": BOX, "person": ClassSpec("mask", "outline", aliases=["face"])})
    with pytest.raises(TaxonomyError, match="unknown class 'fce'; known classes: face"):
        Taxonomy({"face": BOX})["fce"]
    with pytest.raises(TaxonomyError, match="margin is nan"):
        ClassSpec(geometry="box", shape="box", margin=float("nan"))
