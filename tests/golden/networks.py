"""The two small networks of the golden files: their weights and images, in NumPy alone.

`pooled`: conv, ReLU ("layer1"), conv, ReLU ("layer2"), global average pool, dense.
`dense`: conv, SiLU ("layer1"), 2 x 2 max pool, conv, SiLU ("layer2"), flatten, dense.
Kernels are `[3, 3, in, out]`, the first convolution has stride 2, both are padded by 1; flattening
is channels last.
"""

from pathlib import Path

import numpy as np

SEED = 8
TARGETS = [1, 0, 4]
SHAPE = (len(TARGETS), 12, 16, 3)  # images
CLASSES = 5
NETWORKS = ("pooled", "dense")
LAYERS = ("layer1", "layer2")
FEATURES = {"pooled": 8, "dense": 8 * 3 * 4}  # that enter the dense layer


def weights(network: str) -> dict[str, np.ndarray]:
    """Random weights, scaled so that logits differ by about 1."""
    rng = np.random.default_rng([SEED, NETWORKS.index(network)])

    def normal(*shape: int, scale: float) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    features = FEATURES[network]
    return {
        "conv1": normal(3, 3, 3, 6, scale=0.3),
        "bias1": normal(6, scale=0.2),
        "conv2": normal(3, 3, 6, 8, scale=0.25),
        "bias2": normal(8, scale=0.2),
        "kernel": normal(features, CLASSES, scale=4 / features**0.5),
        "bias": normal(CLASSES, scale=0.5),
    }


def images() -> np.ndarray:
    """Random images `[n, 12, 16, 3]` with some structure, in [0, 1]."""
    rng = np.random.default_rng(SEED)
    coarse = rng.random((SHAPE[0], 3, 4, 3))
    fine = np.kron(coarse, np.ones((1, 4, 4, 1))) + 0.2 * rng.random(SHAPE)
    return (fine / 1.2).astype(np.float32)


def save(library: str, network: str, versions: str, found: dict[str, np.ndarray]) -> None:
    """Writes one golden file, rounded to 2e-6 of the largest value, and says how large it is."""
    path = Path(__file__).parent / f"{library}_{network}.npz"
    kept = {name: _rounded(values) for name, values in found.items()}
    kept["versions"] = np.array(f"{versions}, seed {SEED}")
    np.savez_compressed(path, allow_pickle=False, **kept)
    print(path.name, versions, len(found), "arrays", path.stat().st_size, "bytes")


def _rounded(values: np.ndarray) -> np.ndarray:
    """To multiples of a power of 2, which compress well."""
    largest = np.abs(values).max()
    unit = 2 ** (np.floor(np.log2(largest)) - 18) if largest else 1
    return (np.round(values / unit) * unit).astype(np.float32)
