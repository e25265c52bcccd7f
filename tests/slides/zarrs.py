"""OME-Zarr folders for tests, as their converters write them."""

import numpy as np
import zarr

UNITS = {"micrometer": 1.0, "nanometer": 1000.0, "millimeter": 0.001}
RGB = tuple(
    {"label": f"Channel {i}", "color": color} for i, color in enumerate(("FF0000", "00FF00", "0000FF"))
)


def write_zarr(
    folder,
    image,
    *,
    version="0.4",
    axes="tczyx",
    mpp=0.25,
    unit="micrometer",
    levels=2,
    chunk=256,
    channels_together=False,
    shard=None,
    fill=0,
    planes=None,
    times=1,
    omero=RGB,
    name=None,
    group=None,
    compressors="auto",
):
    """Write ``image``, (height, width, channels), halved level by level; ``planes`` are more images in z.

    Returns the attributes, as they are written.
    """
    stack = np.stack([image] if planes is None else planes)  # z, y, x, c
    v3 = version >= "0.5"
    if group is None:
        group = zarr.create_group(folder, zarr_format=3 if v3 else 2, overwrite=True)
    datasets = []
    for level in range(levels):
        data = np.stack([stack[:, :: 2**level, :: 2**level]] * times)  # t, z, y, x, c
        if "c" not in axes:
            data = data[..., 0]
        have = [axis for axis in "tzyxc" if axis in axes]
        data = data.reshape([n for n, axis in zip(data.shape, "tzyxc", strict=False) if axis in axes])
        data = data.transpose([have.index(axis) for axis in axes])
        sides = {"y": chunk, "x": chunk, "c": stack.shape[-1] if channels_together else 1}
        shape = [sides.get(axis, 1) for axis in axes]
        options = {}
        if shard:
            options["shards"] = [{"y": shard, "x": shard, "c": stack.shape[-1]}.get(axis, 1) for axis in axes]
            shape = [min(a, b) for a, b in zip(shape, options["shards"], strict=True)]
        array = group.create_array(
            str(level), shape=data.shape, chunks=shape, dtype=data.dtype, fill_value=fill,
            compressors=compressors, **options,
        )  # fmt: skip
        array[:] = data
        size = {axis: mpp * UNITS.get(unit, 1.0) * 2**level for axis in "yx"}
        scale = {"type": "scale", "scale": [size.get(axis, 1.0) for axis in axes]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in described:
        if axis["type"] == "space" and unit:
            axis["unit"] = unit
    attributes = {"multiscales": [{"version": version, "axes": described, "datasets": datasets}]}
    if name is not None:
        attributes["multiscales"][0]["name"] = name
    if omero is not None:
        attributes["omero"] = {"channels": [dict(channel) for channel in omero]}
    if v3:
        group.attrs["ome"] = {"version": version, **attributes}
    else:
        group.attrs.update(attributes)
    return attributes
