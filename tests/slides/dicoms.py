"""DICOM slides for tests."""

import numpy as np
from imagecodecs import htj2k_encode, jpeg2k_encode, jpeg8_encode, jpegls_encode
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID, VLWholeSlideMicroscopyImageStorage, generate_uid

NATIVE, BIG, DEFLATED, IMPLICIT = (f"1.2.840.10008.1.2{tail}" for tail in (".1", ".2", ".1.99", ""))
JPEG, JPEGLS, J2K, HTJ2K, RLE = (f"1.2.840.10008.1.2.{n}" for n in ("4.50", "4.80", "4.90", "4.201", "5"))


def jpeg(tile, space="YCBCR", subsampling=None, markers=True):
    """Encode a tile; ``space`` is what its components are."""
    data = jpeg8_encode(tile, level=95, colorspace="RGB", outcolorspace=space, subsampling=subsampling)
    return data if markers else unmarked(data)


def unmarked(data):
    """Return a JPEG without application segments."""
    kept, position = [data[:2]], 2
    while data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if not 0xE0 <= data[position + 1] <= 0xEF:
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])


def rle(tile):
    dataset = Dataset()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = tile.shape[0], tile.shape[1], 3
    dataset.BitsAllocated = dataset.BitsStored = tile.dtype.itemsize * 8
    dataset.PixelRepresentation, dataset.PlanarConfiguration = 0, 0
    dataset.PhotometricInterpretation, dataset.NumberOfFrames = "RGB", "1"
    return RLELosslessEncoder.encode(
        tile.tobytes(), rows=tile.shape[0], columns=tile.shape[1], samples_per_pixel=3, number_of_frames=1,
        bits_allocated=tile.dtype.itemsize * 8, bits_stored=tile.dtype.itemsize * 8, pixel_representation=0,
        planar_configuration=0, photometric_interpretation="RGB",
    )  # fmt: skip


ENCODERS = {
    JPEG: jpeg,
    JPEGLS: jpegls_encode,
    J2K: lambda tile: jpeg2k_encode(tile, reversible=True, level=0, codecformat="j2k"),
    HTJ2K: lambda tile: htj2k_encode(tile, reversible=True),
    RLE: rle,
}


def tiles_of(image, side):
    """Yield the tiles of an image row by row, filled up with white."""
    high, wide = (-(-size // side) * side for size in image.shape[:2])
    full = np.full((high, wide, *image.shape[2:]), np.iinfo(image.dtype).max, image.dtype)
    full[: image.shape[0], : image.shape[1]] = image
    for y in range(0, high, side):
        for x in range(0, wide, side):
            yield np.ascontiguousarray(full[y : y + side, x : x + side])


def write_dicom(
    path, image, *, syntax=NATIVE, side=256, series="1.2.3", colours="RGB", encode=None, frames=None,
    offsets="basic", mpp=0.25, kind="VOLUME", **more,
):  # fmt: skip
    """Write ``image``, (height, width, 3), as a DICOM instance; ``frames`` are tiles in place of its own."""
    tiles = list(tiles_of(image, side)) if frames is None else frames
    dataset = Dataset()
    meta = dataset.file_meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = UID(syntax), VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        VLWholeSlideMicroscopyImageStorage,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2.9", series, "SM"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = image.shape[1], image.shape[0]
    dataset.Rows = dataset.Columns = side
    dataset.NumberOfFrames, dataset.SamplesPerPixel = len(tiles), image.shape[2]
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = colours, 0
    dataset.BitsAllocated = dataset.BitsStored = image.dtype.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.TotalPixelMatrixFocalPlanes = dataset.NumberOfOpticalPaths = 1
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    for name, value in more.items():
        setattr(dataset, name, value)
    encode = encode or ENCODERS.get(syntax)
    if encode is None:
        if dataset.PlanarConfiguration:
            tiles = [tile.transpose(2, 0, 1) for tile in tiles]
        order = ">" if syntax == BIG else "<"
        pixels = b"".join(tile.astype(tile.dtype.newbyteorder(order)).tobytes() for tile in tiles)
        dataset.add_new(0x7FE00010, "OB" if image.dtype == np.uint8 else "OW", pixels)
    elif offsets == "extended":
        pixels, table, lengths = encapsulate_extended([encode(tile) for tile in tiles])
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = table, lengths
        dataset.add_new(0x7FE00010, "OB", pixels)
    else:
        fragments = 3 if offsets == "fragments" else 1
        encoded = [encode(tile) for tile in tiles]
        pixels = encapsulate(encoded, fragments_per_frame=fragments, has_bot=offsets == "basic")
        dataset.add_new(0x7FE00010, "OB", pixels)
    if encode is not None:
        dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def place(column, row, z=0.0):
    """Return the functional groups of a frame that says where it lies, in pixels from 0 and in mm."""
    group, position = Dataset(), Dataset()
    position.ColumnPositionInTotalImagePixelMatrix = column + 1
    position.RowPositionInTotalImagePixelMatrix = row + 1
    position.ZOffsetInSlideCoordinateSystem = z
    group.PlanePositionSlideSequence = [position]
    return group
