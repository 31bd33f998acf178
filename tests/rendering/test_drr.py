"""Pictures, virtual patients and findings of a phantom whose organs are ellipsoids at known places."""

import numpy as np
import pytest

from cxw_monai.rendering.anatomy import MU_WATER_PER_MM, build_anatomy
from cxw_monai.rendering.detector import Collimation, Detector
from cxw_monai.rendering.findings import Finding
from cxw_monai.rendering.geometry import default_beam
from cxw_monai.rendering.patient import Pose, SpatialTransform, VirtualPatient, draw_patient, random_stream
from cxw_monai.rendering.render import build_patient, render
from cxw_monai.rendering.source import read_labelled_ct
from tests.helpers.phantom import PHANTOM_ORGANS, PHANTOM_SHAPE, write_phantom

SIZE = 96


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def anatomy(source):
    return build_anatomy(read_labelled_ct(source), voxel_mm=4.0)


def shoot(anatomy, patient=None, view="PA", pose=None, detector=None, collimation=None, size=SIZE):
    """A picture with next to no noise unless a detector is given."""
    beam = default_beam(view, size, 260.0)
    volume = build_patient(anatomy, patient or VirtualPatient())
    detector = detector or Detector(photons=1e9)
    return render(volume, beam, pose or Pose(), detector, np.random.default_rng(0), collimation)


def middle(mask):
    """Column and row of a mask's centroid."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


# Geometry of the picture


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_masks_lie_where_the_organs_are(anatomy, view):
    """The centre of an ellipsoid projects to u = -(x - x0) * SDD / (SOD +- (y - y0)) / pitch, v likewise."""
    picture, beam = shoot(anatomy, view=view), default_beam(view, SIZE, 260.0)
    centres = {organ.name: organ.centre_mm for organ in PHANTOM_ORGANS}
    for name, organ in (("liver", "liver"), ("clavicle_left", "clavicula_left"), ("scapula_right", "scapula_right")):
        x, y, z = np.array(centres[organ]) - anatomy.isocentre
        depth = beam.source_isocentre_mm + (y if view == "PA" else -y)
        scale = beam.source_detector_mm / depth / beam.pitch_mm
        np.testing.assert_allclose(middle(picture.masks[name]), [47.5 - x * scale, 47.5 - z * scale], atol=0.8)


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_left_and_right(anatomy, view):
    masks = shoot(anatomy, view=view).masks
    assert middle(masks["lung_right"])[0] < SIZE * 0.4
    assert middle(masks["lung_left"])[0] > SIZE * 0.6
    assert middle(masks["liver"])[0] < 47 < middle(masks["heart"])[0]
    assert middle(masks["clavicle_right"])[1] < middle(masks["liver"])[1]  # head up


def test_lateral_shows_the_front_at_image_left(anatomy):
    masks = shoot(anatomy, view="LAT").masks
    assert middle(masks["sternum"])[0] < middle(masks["heart"])[0] < middle(masks["vertebrae"])[0]


@pytest.mark.parametrize("orientation", ["LAS", "LPS", "SLP"])
def test_stored_orientation_makes_no_difference(anatomy, tmp_path, orientation):
    flipped = build_anatomy(read_labelled_ct(write_phantom(tmp_path, orientation)), voxel_mm=4.0)
    expected, got = shoot(anatomy), shoot(flipped)
    np.testing.assert_allclose(got.line_integral, expected.line_integral, atol=1e-5)
    assert all((got.masks[name] == mask).all() for name, mask in expected.masks.items())


def test_line_integral_of_the_body(anatomy):
    """A ray through the lower liver meets the whole depth of the body, of 20 to 60 HU, and little of the lung."""
    picture = shoot(anatomy)
    column, row = middle(picture.masks["liver"]).round().astype(int)
    tissue = 2 * 98 * np.sqrt(1 - (55 / 145) ** 2)  # depth of the elliptic body 55 mm beside its middle
    assert picture.line_integral[row + 10, column] == pytest.approx(tissue * 1.03 * MU_WATER_PER_MM, rel=0.12)


def test_table_and_air_do_not_show(source, anatomy):
    ct = read_labelled_ct(source)
    hu = ct.hu.copy()
    hu[:, 1] = 300  # a plate behind the back
    with_table = build_anatomy(type(ct)(hu, ct.labels, ct.affine, ct.names), voxel_mm=4.0)
    np.testing.assert_allclose(shoot(with_table).line_integral, shoot(anatomy).line_integral, atol=0.02)


def test_contrast_and_masses_are_taken_out(source, anatomy):
    ct = read_labelled_ct(source)
    hu = ct.hu.copy()
    hu[ct.labels == 4] = 400  # contrast in the heart
    away = np.indices(PHANTOM_SHAPE).transpose(1, 2, 3, 0) - (56, 28, 43)
    hu[np.linalg.norm(away, axis=-1) < 3.5] = 40  # a mass of 28 mm in the right lung
    dirty = type(ct)(hu, ct.labels, ct.affine, ct.names)
    plain = shoot(anatomy).line_integral
    cleaned = shoot(build_anatomy(dirty, voxel_mm=4.0)).line_integral
    kept = shoot(build_anatomy(dirty, voxel_mm=4.0, clean=False)).line_integral
    assert np.abs(cleaned - plain).max() < 0.05
    assert (kept - plain).max() > 0.3


# Virtual patients


def test_to_room_inverts_to_index(anatomy):
    patient = draw_patient(np.random.default_rng(3), deform_mm=12.0)
    transform = SpatialTransform(anatomy, patient, Pose((4.0, -3.0, 5.0), (5.0, -6.0, 7.0)))
    points = np.array([organ.centre_mm for organ in PHANTOM_ORGANS], dtype=float)
    index = transform.to_index(transform.to_room(points))
    back = index @ anatomy.affine[:3, :3].T + anatomy.affine[:3, 3]
    np.testing.assert_allclose(back, points, atol=1e-3)


def test_deformation_moves_picture_masks_and_landmarks_together(anatomy):
    patient = VirtualPatient(scale=1.05, control_mm=draw_patient(np.random.default_rng(5)).control_mm)
    pose = Pose((2.0, 3.0, -4.0), (6.0, 0.0, -5.0))
    plain, moved = shoot(anatomy), shoot(anatomy, patient, pose=pose)
    shift = middle(moved.masks["heart"]) - middle(plain.masks["heart"])
    assert np.hypot(*shift) > 2
    landmark = np.array(moved.landmarks["heart_centroid"]) - plain.landmarks["heart_centroid"]
    np.testing.assert_allclose(landmark, shift, atol=1.0)


def test_turned_patient_turns_by_the_angle(anatomy):
    """A lean of 10 degrees about the beam turns the line between two landmarks by 10 degrees."""
    ends = [shoot(anatomy, pose=Pose((0, lean, 0))).landmarks for lean in (0.0, 10.0)]
    lines = [np.subtract(e["lung_apex_left"], e["lung_apex_right"]) for e in ends]
    turn = np.rad2deg(np.arctan2(lines[1][1], lines[1][0]) - np.arctan2(lines[0][1], lines[0][0]))
    assert abs(turn) == pytest.approx(10.0, abs=0.3)


def test_scale_scales(anatomy):
    widths = [np.ptp(np.nonzero(shoot(anatomy, VirtualPatient(scale=s)).masks["liver"])[1]) for s in (0.9, 1.1)]
    assert widths[1] / widths[0] == pytest.approx(1.1 / 0.9, abs=0.06)


@pytest.mark.parametrize(("group", "name"), [("lungs", "lung_right"), ("liver", "liver"), ("heart", "heart")])
def test_density_changes_its_organ_only(anatomy, group, name):
    plain, changed = shoot(anatomy), shoot(anatomy, VirtualPatient(density={group: 1.3}))
    rise = changed.line_integral - plain.line_integral
    column, row = middle(plain.masks[name]).round().astype(int)
    assert rise[row, column] > 0.03
    touched = plain.masks[name] | (plain.masks["lung_left"] if group == "lungs" else False)
    outside = ~touched & (rise > 0.08)
    assert outside.sum() < 0.02 * touched.sum()


def test_folding_deformation_is_refused(anatomy):
    patient = VirtualPatient(control_mm=np.full((3, 6, 6, 6), 40.0))
    with pytest.raises(ValueError, match="may fold this CT; keep it under"):
        SpatialTransform(anatomy, patient, Pose())


def test_streams_depend_on_all_three():
    draws = {random_stream(*key).integers(2**62) for key in ((0, 1, "a"), (0, 1, "b"), (0, 2, "a"), (1, 1, "a"))}
    assert len(draws) == 4
    assert random_stream(0, 1, "a").integers(2**62) == random_stream(0, 1, "a").integers(2**62)


# Findings


@pytest.mark.parametrize("side", ["left", "right"])
def test_nodule_brightens_its_place(anatomy, side):
    plain, ill = shoot(anatomy), shoot(anatomy, VirtualPatient(findings=(Finding("Nodule", side, 1.0, 0.3),)))
    rise = ill.line_integral - plain.line_integral
    x, y, width, height = ill.boxes["Nodule"]
    spot = np.zeros(rise.shape, dtype=bool)
    spot[int(y) : int(y + height), int(x) : int(x + width)] = True
    # 28 mm across of density 1.04 instead of 0.15
    assert rise[spot].max() == pytest.approx(28 * 0.89 * MU_WATER_PER_MM, rel=0.15)
    assert np.abs(rise[~spot]).max() < 0.1
    assert width == pytest.approx(28 * SIZE / 260, abs=2.5)
    assert ill.masks[f"lung_{side}"][spot].mean() > 0.9


@pytest.mark.parametrize(("side", "other"), [("left", "right"), ("right", "left")])
def test_effusion_fills_the_lower_lung(anatomy, side, other):
    plain, ill = shoot(anatomy), shoot(anatomy, VirtualPatient(findings=(Finding("Effusion", side, 1.0),)))
    rise = ill.line_integral - plain.line_integral
    lung = plain.masks[f"lung_{side}"]
    rows = np.flatnonzero(lung.any(axis=1))
    low, high = np.zeros_like(lung), np.zeros_like(lung)
    low[rows[int(0.7 * len(rows))] : rows[-1]] = True
    high[rows[0] : rows[int(0.25 * len(rows))]] = True
    assert rise[lung & low].mean() > 0.8
    assert abs(rise[lung & high].mean()) < 0.1
    assert np.abs(rise[plain.masks[f"lung_{other}"] & ~lung]).max() < 1e-4
    x, y, width, height = ill.boxes["Effusion"]
    assert y + height >= rows[-1] - 1
    assert (x > SIZE / 2 - 3) if side == "left" else (x + width < SIZE / 2 + 3)


def test_effusion_has_a_meniscus(anatomy):
    """The fluid stands higher at the chest wall than in the middle of the lung."""
    mask = shoot(anatomy, VirtualPatient(findings=(Finding("Effusion", "right", 0.5),))).finding_masks["Effusion"]
    columns = np.flatnonzero(mask.any(axis=0))
    top = mask.argmax(axis=0)
    lateral, centre = top[columns[2] : columns[8]].min(), top[columns[len(columns) // 2]]
    assert lateral < centre - 2


def test_enlarged_heart_raises_the_cardiothoracic_ratio(anatomy):
    def ratio(picture):
        heart, chest = picture.masks["heart"], picture.masks["lung_left"] | picture.masks["lung_right"]
        return np.ptp(np.nonzero(heart)[1]) / np.ptp(np.nonzero(chest)[1])

    plain = shoot(anatomy)
    mild, severe = (shoot(anatomy, VirtualPatient(findings=(Finding("Cardiomegaly", "", s),))) for s in (0.0, 1.0))
    assert ratio(plain) * 1.1 < ratio(mild) < ratio(severe) < ratio(plain) * 1.6
    grown = severe.masks["heart"] & ~plain.masks["heart"]
    assert (severe.line_integral - plain.line_integral)[grown].mean() > 0.3
    assert severe.boxes["Cardiomegaly"][2] == np.ptp(np.nonzero(severe.masks["heart"])[1]) + 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_pneumothorax_darkens_the_periphery(anatomy, side):
    dense = {"lungs": 2.5}  # a phantom's lung is so thin that air hardly differs
    plain = shoot(anatomy, VirtualPatient(density=dense))
    ill = shoot(anatomy, VirtualPatient(density=dense, findings=(Finding("Pneumothorax", side, 1.0),)))
    fall = plain.line_integral - ill.line_integral
    lung = plain.masks[f"lung_{side}"]
    rows = np.flatnonzero(lung.any(axis=1))
    apex = np.zeros_like(lung)
    apex[rows[0] : rows[len(rows) // 8]] = True
    base = np.zeros_like(lung)
    base[rows[int(0.8 * len(rows))] :] = True
    assert fall[lung & apex].mean() > 0.1
    assert fall[lung & base].mean() < 0  # the rest of the lung is denser
    assert not (ill.finding_masks["Pneumothorax"] & base).any()
    assert ill.finding_masks["Pneumothorax"][lung & apex].mean() > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Mass", "left"), "kind must be one of"),
        (("Nodule", ""), "side of Nodule"),
        (("Cardiomegaly", "left"), "side of Cardiomegaly"),
        (("Nodule", "left", 1.5), "severity must lie"),
    ],
)
def test_impossible_findings(arguments, message):
    with pytest.raises(ValueError, match=message):
        Finding(*arguments)


# Detector


def test_bone_is_bright_and_lung_is_dark_in_both_displays(anatomy):
    for display in ("log", "exposure"):
        picture = shoot(anatomy, detector=Detector(display, 1e9))
        spine, lung = picture.masks["vertebrae"] & ~picture.masks["trachea"], picture.masks["lung_right"]
        assert picture.image.shape == (1, SIZE, SIZE)
        assert picture.image.dtype == np.float32
        assert 0 <= picture.image.min() < picture.image.max() <= 1
        assert picture.image[0][spine].mean() > picture.image[0][lung & ~spine].mean() + 0.2


def test_exposure_display_follows_beer_and_lambert(anatomy):
    picture = shoot(anatomy, detector=Detector("exposure", 1e12))
    dose = 1 - picture.image[0]
    inside = (dose > 0.001) & (dose < 0.99)
    ratio = dose[inside] / np.exp(-picture.line_integral[inside])
    assert inside.sum() > 500
    assert ratio.std() / ratio.mean() < 1e-2


def test_quantum_noise_falls_with_the_root_of_the_photons(anatomy):
    clean = shoot(anatomy, detector=Detector(photons=1e12)).image
    few, many = (np.std(shoot(anatomy, detector=Detector(photons=n)).image - clean) for n in (2e4, 32e4))
    assert few / many == pytest.approx(4.0, rel=0.2)


def test_collimation_is_dark_and_cuts_masks_and_landmarks(anatomy):
    field = Collimation(10, 20, SIZE - 5, SIZE - 8)
    picture, whole = shoot(anatomy, collimation=field), shoot(anatomy)
    border = np.ones((SIZE, SIZE), dtype=bool)
    border[20:-8, 10:-5] = False
    assert (picture.image[0][border] == 0).all()
    assert whole.image[0][border].mean() > 0.1
    assert whole.masks["clavicle_right"][border].any()
    assert not any(mask[border].any() for mask in picture.masks.values())
    assert whole.landmarks["lung_apex_left"][1] < 20
    assert "lung_apex_left" not in picture.landmarks
