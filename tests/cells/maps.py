"""Random and adversarial segmentation maps."""

import numpy as np

RED, BLUE, BLACK, GREEN = (200, 0, 0), (0, 0, 200), (0, 0, 0), (0, 200, 0)
COLOURS = np.array([BLACK, RED, BLUE, GREEN], dtype=np.uint8)


def noise(rng, height, width, fill=0.5):
    """Every pixel for itself: thin bridges, corners touching, tiny holes everywhere."""
    return np.where(rng.random((height, width)) < fill, rng.integers(1, 3, (height, width)), 0)


def blobs(rng, height, width, count=12):
    """Overlapping discs and rings, some crossing the border."""
    y, x = np.mgrid[:height, :width]
    classes = np.zeros((height, width), dtype=int)
    for _ in range(count):
        radius = rng.uniform(1, max(2, min(height, width) / 4))
        distance = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width))
        shape = (distance < radius) & (distance >= radius * rng.choice([0, 0, 0.5, 0.8]))
        classes[shape] = rng.integers(0, 3)
    return classes


def spiral(height, width, gap=2):
    """One line that winds inwards; the background winds in with it."""
    classes = np.zeros((height, width), dtype=int)
    y, x, dy, dx = 0, 0, 0, 1
    top, left, bottom, right = 0, 0, height - 1, width - 1
    classes[0, 0] = 1
    while top <= bottom and left <= right:
        ny, nx = y + dy, x + dx
        if not (top <= ny <= bottom and left <= nx <= right):
            if (dy, dx) == (0, 1):
                top += gap
            elif (dy, dx) == (1, 0):
                right -= gap
            elif (dy, dx) == (0, -1):
                bottom -= gap
            else:
                left += gap
            dy, dx = dx, -dy
            ny, nx = y + dy, x + dx
            if not (top <= ny <= bottom and left <= nx <= right):
                break
        y, x = ny, nx
        classes[y, x] = 1 + (y + x) % 2
    return classes


def rings(height, width, gap=2, broken=False):
    """Rings within rings, an islet in the middle; ``broken`` opens one pixel of each."""
    y, x = np.mgrid[:height, :width]
    distance = np.minimum.reduce([y, x, height - 1 - y, width - 1 - x])
    classes = np.where(distance % gap == 0, 1 + (distance // gap) % 2, 0)
    if broken:
        classes[height // 2, : width // 2] = 0
    return classes


def colour(classes):
    """Return the segmentation map of an array of classes 0 to 3."""
    return COLOURS[classes]
