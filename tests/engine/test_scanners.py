"""One region of tissue on two scanners: the same cells, whatever each makes of scale, colour and file."""

import pytest

from deepliif_ray import Execution, connect, score


def test_one_region_on_two_scanners(shared_data, tmp_path):
    files = {name: shared_data / "scanners" / f"OS-2-{name}.ome.tif" for name in ("ndpi", "vsi")}
    rows = [f"{name},P1,Ki67,{path}\n" for name, path in files.items()]
    (tmp_path / "manifest.csv").write_text("slide_id,patient_id,marker,uri\n" + "".join(rows))
    score(
        str(tmp_path / "manifest.csv"),
        str(tmp_path / "results"),
        model="stain",
        execution=Execution(engine="local"),
    )
    with connect(tmp_path / "results") as connection:
        found = connection.sql(
            "SELECT slide_id, i.n_called, i.index_percent, s.contrast, s.reader "
            "FROM slide_indices AS i JOIN slides AS s USING (slide_id) ORDER BY slide_id"
        ).fetchall()
    (_, cells, index, factor, reader), (_, others, other_index, raised, _) = found
    assert reader == "tifffile"
    assert others == pytest.approx(cells, rel=0.03)
    assert other_index == pytest.approx(index, abs=3)
    assert factor == 1 < raised  # the second scanner shows hematoxylin paler
