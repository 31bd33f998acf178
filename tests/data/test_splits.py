"""Few patients of a data set."""

from cxw_monai.data.splits import few_patients


def test_patients_of_an_earlier_want_count():
    """One film of both classes serves both."""
    items = [{"image": f"/x/{n}.png", "patient_id": str(n)} for n in range(3)]
    both = [True, False, False]
    assert few_patients(items, [(both, 1), (both, 1)]) == items[:1]
    assert len(few_patients(items, [([True] * 3, 2)])) == 2
