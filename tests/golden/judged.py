"""What the metrics of the golden files judge and draw, in NumPy alone.

The network is `dense`, the score a probability, and no value of a map comes twice, so that all
libraries remove pixels in one order. Who removes channels one by one sees `grey` images, of one.
"""

from pathlib import Path

import networks
import numpy as np
from networks import CLASSES, SEED, SHAPE

NETWORK = "dense"
TARGETS = [1, 4, 3]
STEPS = 12  # of a deletion
SAMPLES = 8  # noisy images, or subsets
CELLS = (4, 4)  # of pixels that are removed together
SUBSET = 3  # cells
RADIUS, SCALE = 0.02, 0.1  # of the noise
PERCENTILES = [20, 40, 60, 80]
BLOCK = 4  # the side of a square of pixels

_, HEIGHT, WIDTH, _ = SHAPE
PIXELS = HEIGHT * WIDTH
SUBSET_PIXELS = SUBSET * PIXELS // (CELLS[0] * CELLS[1])


def images() -> np.ndarray:
    """The images `[n, H, W, C]` of networks.py, about 0."""
    return 2 * networks.images() - 1


def heatmaps() -> np.ndarray:
    """Maps `[n, H, W]` in [0, 1], whose values are all different."""
    rng = np.random.default_rng([SEED, 1, 2])
    places = np.stack([rng.permutation(PIXELS) for _ in range(SHAPE[0])])
    powers = 1 + np.arange(SHAPE[0])[:, None]  # from broad to narrow
    return ((places / (PIXELS - 1)) ** powers).reshape(SHAPE[:3]).astype(np.float32)


def sparse() -> np.ndarray:
    """The same, more than half of whose values are 0, as behind a ReLU."""
    above = np.maximum(heatmaps() - 0.6, 0)
    return above / above.max((1, 2), keepdims=True)


def inside() -> np.ndarray:
    """Where an object is, `[n, H, W]`: around the largest value, beside it, and far from it."""
    found = np.zeros(SHAPE[:3], bool)
    for n, (at, moved) in enumerate(zip(heatmaps(), (0, 1, 8), strict=True)):
        y, x = np.unravel_index(at.argmax(), at.shape)
        rows, columns = (y + moved + np.arange(4)) % HEIGHT, (x + np.arange(5)) % WIDTH
        found[n][np.ix_(rows, columns)] = True
    return found


def grey() -> np.ndarray:
    """The first channel of the images, `[n, H, W, 1]`."""
    return images()[..., :1]


def normal() -> np.ndarray:
    """Noise `[SAMPLES, H, W, C]`, the same for all images."""
    return np.random.default_rng([SEED, 2]).standard_normal((SAMPLES, *SHAPE[1:])).astype("f4")


def uniform() -> np.ndarray:
    """Noise `[SAMPLES, H, W, C]` in [-1, 1], the same for all images."""
    rng = np.random.default_rng([SEED, 3])
    return rng.uniform(-1, 1, (SAMPLES, *SHAPE[1:])).astype(np.float32)


def cells() -> np.ndarray:
    """The place of each cell `[SAMPLES, CELLS]`; the first of them are a subset."""
    rng, count = np.random.default_rng([SEED, 4]), CELLS[0] * CELLS[1]
    return np.stack([rng.permutation(count).reshape(CELLS) for _ in range(SAMPLES)])


def orders() -> np.ndarray:
    """The place of each pixel `[SAMPLES, H * W]`, cell after cell."""
    size = HEIGHT // CELLS[0], WIDTH // CELLS[1]
    within = np.tile(np.arange(size[0] * size[1]).reshape(size), CELLS)
    return np.stack(
        [(np.kron(c * within.max() + c, np.ones(size, int)) + within).ravel() for c in cells()]
    )


def removed() -> np.ndarray:
    """Seven pixels of ten `[H, W]`, drawn at random, borders and corners among them."""
    gone = np.random.default_rng([SEED, 5]).random(SHAPE[1:3]) < 0.7
    gone[0, 0] = gone[-1, -1] = True
    return gone


def others() -> np.ndarray:
    """For each image another class, as its place among all but the target."""
    return np.random.default_rng([SEED, 6]).integers(0, CLASSES - 1, SHAPE[0])


def save(framework: str, versions: str, found: dict[str, np.ndarray]) -> None:
    """Writes one golden file, and says how large it is."""
    path = Path(__file__).parent / f"metrics_{framework}.npz"
    kept = {name: np.asarray(values, np.float32) for name, values in found.items()}
    np.savez_compressed(
        path, allow_pickle=False, versions=np.array(f"{versions}, seed {SEED}"), **kept
    )
    print(path.name, versions, len(found), "arrays", path.stat().st_size, "bytes")
