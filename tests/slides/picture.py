"""One picture of tissue for tests of files, made once."""

import numpy as np

from deepliif_ray.synthetic import SyntheticTissue

PICTURE = np.asarray(SyntheticTissue(700, 600, seed=3)[:, :])
