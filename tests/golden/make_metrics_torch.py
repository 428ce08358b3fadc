"""Writes the golden file of the metrics of PyTorch's libraries.

In a virtual environment of its own:

    pip install torch==2.13.0 "numpy<2" scipy scikit-image scikit-learn pandas matplotlib tqdm
    pip install opencv-python-headless pillow cachetools ttach==0.0.3
    pip install --no-deps quantus==0.6.0 grad-cam==1.5.7 torchcam==0.5.0 captum==0.9.0
    python tests/golden/make_metrics_torch.py

Quantus calls functions that NumPy 2.4 has no more. Noise and subsets are those of judged.py.
"""

import contextlib
import warnings
from importlib.metadata import version
from unittest import mock

import judged
import numpy as np
import torch
from judged import TARGETS
from make_torch import Network, stub_torchvision
from networks import CLASSES


class Judge(torch.nn.Module):
    """The network's logits, or probabilities, of images of three channels or of one."""

    def __init__(self, network: Network, *, probability: bool = True):
        super().__init__()
        self.network, self.probability = network, probability

    def forward(self, x):
        logits = self.network(x.expand(-1, 3, -1, -1))
        return logits.softmax(-1) if self.probability else logits


class Total(torch.nn.Module):
    """A score that is the sum of all pixels, and another class."""

    def forward(self, x):
        return torch.stack([x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1)


def gradients(model: torch.nn.Module, x: torch.Tensor, targets: list[int]) -> torch.Tensor:
    """A map that depends on the image and the class: the sizes of the gradient `[n, H, W]`."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        scores = model(x)[torch.arange(len(x)), torch.as_tensor(targets)]
        (found,) = torch.autograd.grad(scores.sum(), x)
    return found.abs().sum(1)


def each(measure) -> np.ndarray:
    """A number, or several, of each image alone."""
    return np.stack([np.asarray(measure(slice(i, i + 1), t)) for i, t in enumerate(TARGETS)])


def torchcam(judge: Judge, x: torch.Tensor) -> dict[str, np.ndarray]:
    from torchcam import metrics

    maps = torch.from_numpy(judged.heatmaps())

    class Extractor:
        """It has the maps already."""

        def __init__(self, model, at):
            self.model, self.at = model, at

        def __call__(self, class_idx, scores):
            return [maps[self.at]]

        def fuse_cams(self, cams):
            return cams[0]

        def _hooks_off(self):
            return contextlib.nullcontext()

    def update(make, name, at, target, model=judge):
        metric = make(Extractor(model, at))
        metric.update(x[at], target)
        return metric.summary()[name]

    def of_each(make, name):
        return each(lambda at, target: update(make, name, at, target))

    def removal(extractor):
        return metrics.DeletionInsertionMetric(extractor, steps=judged.STEPS)

    drop, logits = metrics.ClassificationMetric, Judge(judge.network, probability=False)
    of_logits = [update(drop, "avg_drop", slice(0, 1), c, logits) for c in range(CLASSES)]
    return {
        "drop": of_each(drop, "avg_drop"),
        "increase": of_each(drop, "conf_increase"),
        "deletion": of_each(removal, "deletion_auc"),
        "insertion": of_each(removal, "insertion_auc"),
        "drop_of_logits": np.array(of_logits),
    }


def pytorch_grad_cam(judge: Judge, x: torch.Tensor) -> dict[str, np.ndarray]:
    from pytorch_grad_cam.metrics import arcc, cam_mult_image, road
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    maps, targets = judged.heatmaps(), [ClassifierOutputTarget(t) for t in TARGETS]

    def base_method(input_tensor, targets):
        return gradients(judge, input_tensor, TARGETS).numpy()

    found = {
        name: metric()(x, maps[:, None], targets, judge)
        for name, metric in {
            "drop_in_confidence": cam_mult_image.DropInConfidence,
            "increase": cam_mult_image.IncreaseInConfidence,
        }.items()
    }
    found["complexity"] = arcc.Complexity()(maps)
    found["coherency"] = arcc.Coherency()(x, maps, targets, judge, base_method)
    with mock.patch.object(torch, "randn_like", torch.zeros_like):  # no noise
        for name, metric in {
            "morf": road.ROADMostRelevantFirstAverage,
            "lerf": road.ROADLeastRelevantFirstAverage,
            "road": road.ROADCombined,
        }.items():
            found[name] = metric(judged.PERCENTILES)(x, maps, targets, judge)
        found["arcc"] = arcc.ARCC(base_method, judged.PERCENTILES)(x, maps, targets, judge)
        mask = torch.from_numpy(~judged.removed()).float()
        filled = road.NoisyLinearImputer(noise=0)(x[0], mask)
        found["imputed"] = filled.numpy().transpose(1, 2, 0)[judged.removed()]
    found["removed"] = _share_removed(judged.sparse()[0])
    return found


def _share_removed(heatmap: np.ndarray) -> np.ndarray:
    """For each percentile the share of the pixels that goes, most and least relevant first."""
    from pytorch_grad_cam.metrics import perturbation_confidence as library

    given = torch.zeros(1, *heatmap.shape)
    return np.array(
        [
            [
                1 - remove(q, lambda _, mask: mask)(given, torch.from_numpy(heatmap)).mean()
                for q in judged.PERCENTILES
            ]
            for remove in (library.RemoveMostRelevantFirst, library.RemoveLeastRelevantFirst)
        ]
    )


def captum(judge: Judge, x: torch.Tensor) -> dict[str, np.ndarray]:
    from captum.metrics import infidelity, sensitivity_max

    maps = torch.from_numpy(judged.heatmaps())[:, None].expand(-1, 3, -1, -1)

    def noise(table, inputs):  # each image comes as often as there are samples
        drawn = torch.from_numpy(table).permute(0, 3, 1, 2)
        return drawn.repeat(len(inputs) // len(drawn), 1, 1, 1)

    def normal(inputs):
        drawn = judged.SCALE * noise(judged.normal(), inputs)
        return drawn, inputs - drawn

    def uniform(inputs):
        return inputs + judged.RADIUS * noise(judged.uniform(), inputs)

    def unfaithful(maps, **knobs):
        knobs |= {"target": TARGETS, "n_perturb_samples": judged.SAMPLES}
        return infidelity(judge, normal, x, maps, **knobs).numpy()

    def explain(inputs, target):
        (inputs,) = inputs if isinstance(inputs, tuple) else (inputs,)
        return (gradients(judge, inputs, target),)

    changed = sensitivity_max(
        explain, x, uniform, n_perturb_samples=judged.SAMPLES, target=torch.tensor(TARGETS)
    )
    return {
        "infidelity": unfaithful(maps, normalize=True),
        "infidelity_of_nothing": unfaithful(0 * maps),
        "max_sensitivity": changed.detach().numpy(),
    }


def quantus(judge: Judge, x: torch.Tensor) -> dict[str, np.ndarray]:
    import quantus as library

    plain = {"disable_warnings": True, "normalise": False, "abs": False}
    grey = judged.grey().transpose(0, 3, 1, 2)

    def given(**changed):
        """Everything of its own: some metrics write into the maps."""
        return {
            "model": judge,
            "x_batch": x.numpy().copy(),
            "y_batch": np.array(TARGETS),
            "a_batch": judged.heatmaps()[:, None],
            "s_batch": judged.inside()[:, None],
            "channel_first": True,
            "softmax": False,  # the judge has one
            "device": "cpu",
        } | changed

    def explain(model, inputs, targets, **_):
        x = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
        return gradients(model, x, list(targets)).numpy()

    whole = {"aggregate_func": np.mean, "return_aggregate": False}
    zeros = {"perturb_baseline": 0.0}
    found = {
        "gini": library.Sparseness(**plain)(**given()),
        "entropy": library.Complexity(**plain)(**given()),
        "pointing": library.PointingGame(**plain)(**given()),
        "pointing_at_nothing": library.PointingGame(**plain)(
            **given(s_batch=0 * judged.inside()[:, None])
        ),
        "energy": library.RelevanceMassAccuracy(**plain)(**given()),
        "relevance_rank": library.RelevanceRankAccuracy(**plain)(**given()),
    }
    flipping = {**plain, **zeros, "features_in_step": judged.PIXELS // judged.STEPS}
    on_grey = given(x_batch=grey)
    found["flipping"] = library.PixelFlipping(**flipping)(**on_grey)
    found["flipping_area"] = library.PixelFlipping(**flipping, return_auc_per_sample=True)(
        **on_grey
    )
    subsets = np.repeat(np.argsort(judged.orders(), 1)[:, : judged.SUBSET_PIXELS], len(TARGETS), 0)
    with mock.patch.object(np.random, "choice", mock.Mock(side_effect=list(subsets))):
        found["faithfulness_correlation"] = library.FaithfulnessCorrelation(
            **plain, **zeros, **whole, nr_runs=judged.SAMPLES, subset_size=judged.SUBSET_PIXELS
        )(**on_grey)
    table = judged.uniform().transpose(0, 3, 1, 2)
    for name, metric in {
        "max_sensitivity": library.MaxSensitivity,
        "average_sensitivity": library.AvgSensitivity,
    }.items():
        noise = iter(table)

        def perturbed(arr, indices, noise=noise, **_):
            return arr + judged.RADIUS * next(noise).reshape(1, -1)

        stable = metric(**plain, perturb_func=perturbed, nr_samples=judged.SAMPLES)
        found[name] = stable(**given(a_batch=None, explain_func=explain))
    alike = {"similarity_func": library.similarity_func.correlation_spearman}
    own = gradients(judge, x, TARGETS).numpy()[:, None]
    with mock.patch.object(np.random, "randint", return_value=judged.others()):
        found["random_logit"] = library.RandomLogit(**plain, **alike, num_classes=CLASSES)(
            **given(a_batch=own, explain_func=explain)
        )
    image = x[0].numpy().astype(float)
    gone = np.flatnonzero(judged.removed())
    filled = library.perturb_func.noisy_linear_imputation(image, gone, noise=0.0)
    found["imputed"] = filled.reshape(3, -1)[:, gone].T
    return found | _faults(library, given, explain, plain, on_grey)


def _faults(library, given, explain, plain, on_grey) -> dict[str, np.ndarray]:
    """Numbers that differ from the paper's."""
    zeros = {"perturb_baseline": 0.0}
    squares = {**plain, **zeros, "perturb_patch_sizes": [judged.BLOCK]}
    found = {
        f"infidelity_{n}": library.Infidelity(**squares, n_perturb_samples=n)(**on_grey)
        for n in (1, 3)
    }
    linear = given(
        model=Total().eval(),
        x_batch=judged.grey().transpose(0, 3, 1, 2),
        y_batch=np.zeros(len(TARGETS), int),
        a_batch=judged.grey().transpose(0, 3, 1, 2),
    )
    steps = {"features_in_step": judged.PIXELS // judged.STEPS, "return_aggregate": False}
    found["sensitivity_n_of_a_sum"] = library.SensitivityN(**plain, **zeros, **steps)(**linear)
    top = given()["model"](torch.from_numpy(on_grey["x_batch"])).argmax(1).numpy()
    noiseless = {"percentages": judged.PERCENTILES, "noise": 0.0}
    for size in (1, len(TARGETS)):
        scores = library.ROAD(**plain, **noiseless)(**on_grey | {"y_batch": top}, batch_size=size)
        found[f"road_in_batches_of_{size}"] = [*scores.values()]
    try:
        library.ROAD(**plain, **noiseless)(**given())
    except IndexError:
        found["road_of_colours_raises"] = [1]
    alike = {"similarity_func": library.similarity_func.correlation_spearman}
    knobs = {**plain, **alike, "return_average_correlation": False}
    own = gradients(given()["model"], torch.from_numpy(given()["x_batch"]), TARGETS).numpy()
    random = given(a_batch=own[:, None], explain_func=explain)
    found["randomised"] = [*library.MPRT(**knobs)(**random).values()]
    knobs["return_average_correlation"] = True
    found["randomised_average"] = library.MPRT(**knobs)(**random)
    maps = given()["a_batch"]
    library.Sparseness(**plain)(**given(a_batch=maps))
    library.Complexity(**plain)(**given(a_batch=maps))
    found["sum_of_maps_afterwards"] = maps.sum((1, 2, 3))
    weighted = library.AttributionLocalisation(**plain, weighted=True)
    found["localisation_weighted"] = weighted(**given())
    return found


LIBRARIES = {
    "torchcam": torchcam,
    "pytorch_grad_cam": pytorch_grad_cam,
    "captum": captum,
    "quantus": quantus,
}
PACKAGES = ["quantus", "grad-cam", "torchcam", "captum", "torch", "numpy"]

if __name__ == "__main__":
    stub_torchvision()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    judge = Judge(Network(judged.NETWORK).eval()).eval()
    x = torch.from_numpy(judged.images()).permute(0, 3, 1, 2)
    found = {
        f"{library}/{name}": values
        for library, run in LIBRARIES.items()
        for name, values in run(judge, x).items()
    }
    for name, values in found.items():
        print(name, np.asarray(values).ravel()[:6])
    judged.save("torch", ", ".join(f"{p} {version(p)}" for p in PACKAGES), found)
