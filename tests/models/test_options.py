import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepliif_ray.errors import ModelError
from deepliif_ray.models.options import parse_options, resolve_options

G5 = ["G1", "G2", "G3", "G4", "G51", "G52", "G53", "G54", "G55"]
GS = ["G1", "G2", "G3", "G4", "GS0", "GS1", "GS2", "GS3", "GS4"]


def resolve(names=tuple(G5), **options):
    return resolve_options(options, list(names), "folder/train_opt.txt")


def test_reads_the_published_layout():
    text = (
        "\ufeff----------------- Options ---------------\r\n"
        "               batch_size: 1                             \r\n"
        "              seg_weights: [0.5, 0, 0, 0, 0.5]           \t[default: [0.25, 0.15]]\r\n"
        "                  padding: reflect                       \t[default: zero]\r\n"
        "                 dataroot: s3://bucket:9000/a: b         \r\n"
        "         modalities_names: ['IHC', 'Marker']             \r\n"
        "                  seg_gen: True\r\n"
        "                     name: __import__('os').system('x')  \r\n"
        "        background_colors: [(np.uint8(201), np.uint8(9))]\r\n"
        "                    empty: \r\n"
        "----------------- End -------------------\r\n"
    )
    assert parse_options(text) == {
        "batch_size": 1,
        "seg_weights": [0.5, 0, 0, 0, 0.5],
        "padding": "reflect",
        "dataroot": "s3://bucket:9000/a: b",
        "modalities_names": ["IHC", "Marker"],
        "seg_gen": True,
        "name": "__import__('os').system('x')",
        "background_colors": [(201, 9)],
        "empty": "",
    }


@given(st.text(max_size=200))
def test_any_text_is_data(text):
    parse_options(text)
    parse_options(f"key: {text}")


@pytest.mark.parametrize("value", ["(" * 5000, "-" * 100_000 + "1", "[" * 200 + "]" * 200, "1e999", "\x00"])
def test_values_made_to_upset_a_parser_stay_text_or_harmless(value):
    assert "key" in parse_options(f"key: {value}")


def test_original_model_without_any_option():
    options = resolve()
    assert options.modality_names == ("Hema", "DAPI", "Lap2", "Marker")
    assert options.seg_weights == (0.5, 0, 0, 0, 0.5)
    assert options.marker == 3
    assert options.background_marker == 10
    assert options.scale_size == 512
    assert [options.segmenter_name(i) for i in range(5)] == G5[4:]
    assert {s.architecture for s in options.translators} == {"resnet_9blocks"}
    assert {(s.padding, s.upsample, s.norm) for s in options.translators} == {
        ("zero", "convtranspose", "batch")
    }


def test_new_model_with_names():
    names = ["IHC", "H", "D", "L", "Marker"]
    colors = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (7, 30, 4)]
    options = resolve(GS, modalities_names=names, mod_id_seg="S", background_colors=colors)
    assert options.seg_weights == (0.25, 0.15, 0.25, 0.1, 0.25)
    assert options.modality_names == ("H", "D", "L", "Marker")
    assert options.background_marker == 30
    assert [options.segmenter_name(i) for i in range(5)] == GS[4:]
    assert resolve(GS).segmenter_name(0) == "GS0"  # the prefix is found from the files as well


def test_other_numbers_of_modalities():
    assert resolve(targets_no=5).modality_names == resolve(modalities_no=4).modality_names
    two = resolve(modalities_no=2)
    assert two.modality_names == ("mod1", "mod2")
    assert two.marker is None
    assert two.seg_weights == (1 / 3, 1 / 3, 1 / 3)
    none = resolve(["GS0"], modalities_no=0)
    assert none.translators == ()
    assert none.segmenter_name(0) == "GS0"
    assert none.seg_weights == (1.0,)


def test_architectures_one_each_or_one_for_all():
    many = resolve(net_g="resnet_9blocks,resnet_6blocks,unet_512,unet_256", net_gs=["resnet_9blocks"] * 5)
    assert [s.architecture for s in many.translators] == [
        "resnet_9blocks",
        "resnet_6blocks",
        "unet_512",
        "unet_256",
    ]
    assert {(s.architecture, s.padding) for s in many.segmenters} == {("resnet_9blocks", "reflect")}
    assert resolve(netG="resnet_6blocks").translators[3].architecture == "resnet_6blocks"
    kd = resolve(model="DeepLIIFKD", upsample="resize_conv", padding="reflect")
    assert (kd.translators[0].upsample, kd.translators[0].padding) == ("convtranspose", "reflect")


@pytest.mark.parametrize(
    "bad",
    [
        {"model": "SDG"},
        {"model": "CycleGAN"},
        {"input_no": 2},
        {"seg_gen": False},
        {"modalities_no": "many"},
        {"modalities_no": -1},
        {"modalities_no": 10**9},
        {"modalities_names": ["IHC", "Marker"]},
        {"modalities_names": ["IHC", "a", "a", "b", "c"]},
        {"seg_weights": [1, 2]},
        {"seg_weights": [0, 0, 0, 0, 0]},
        {"seg_weights": ["a"] * 5},
        {"seg_weights": [float("nan")] * 5},
        {"scale_size": 500},
        {"scale_size": 0},
        {"norm": 3},
        {"padding": "mirror"},
        {"upsample": "pixel_shuffle"},
        {"net_gs": "unet_512_attention"},
        {"net_g": ["resnet_9blocks", "resnet_9blocks"]},
        {"background_colors": [(1, 2, 3)]},
        {"background_colors": "red"},
        {"background_colors": [(0, 0, 0)] * 3 + [(999, 0, 0)]},
    ],
)
def test_wrong_options_are_named_with_their_file(bad):
    with pytest.raises(ModelError) as caught:
        resolve(**bad)
    assert "folder/train_opt.txt" in str(caught.value)
    key, value = next(iter(bad.items()))
    assert key in str(caught.value) or str(value) in str(caught.value)
