"""Writes the golden files of the PyTorch libraries.

In a virtual environment of its own:

    pip install torch==2.13.0 numpy pillow tqdm scikit-learn matplotlib opencv-python-headless
    pip install --no-deps grad-cam==1.5.7 torchcam==0.5.0 captum==0.9.0 ttach==0.0.3
    python tests/golden/make_torch.py

pytorch-grad-cam imports names of torchvision that no method here uses; they are stubbed.
Noise is given the size 1e-12, so that the formulas of stochastic methods can be compared.
"""

import copy
import sys
import types
from importlib.metadata import version

import numpy as np
import torch
from networks import LAYERS, NETWORKS, TARGETS, images, save, weights


def stub_torchvision() -> None:
    """Empty modules in place of those that pytorch-grad-cam imports."""
    names = {"": [], ".transforms": ["Compose", "Normalize", "ToTensor"]}
    names |= {".transforms.functional": ["resize"]}
    for name, members in names.items():
        module = types.ModuleType(f"torchvision{name}")
        for member in members:
            setattr(module, member, None)
        sys.modules[f"torchvision{name}"] = module


class Network(torch.nn.Module):
    """The same network with channels first; see networks.py."""

    def __init__(self, network: str):
        super().__init__()
        self.pooled = network == "pooled"
        w = {name: torch.from_numpy(value) for name, value in weights(network).items()}
        relu = torch.nn.ReLU if self.pooled else torch.nn.SiLU
        self.conv1 = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.conv2 = torch.nn.Conv2d(6, 8, 3, padding=1)
        self.layer1, self.layer2 = relu(), relu()
        self.pool = torch.nn.MaxPool2d(2)
        self.classifier = torch.nn.Linear(*w["kernel"].shape)
        with torch.no_grad():
            for conv, n in ((self.conv1, 1), (self.conv2, 2)):
                conv.weight.copy_(w[f"conv{n}"].permute(3, 2, 0, 1))
                conv.bias.copy_(w[f"bias{n}"])
            self.classifier.weight.copy_(w["kernel"].T)
            self.classifier.bias.copy_(w["bias"])

    def forward(self, x):
        x = self.layer1(self.conv1(x))
        x = self.layer2(self.conv2(x if self.pooled else self.pool(x)))
        x = x.mean((2, 3)) if self.pooled else x.permute(0, 2, 3, 1).flatten(1)
        return self.classifier(x)


def pytorch_grad_cam(model: Network, x: torch.Tensor) -> dict[str, np.ndarray]:
    import pytorch_grad_cam as library
    from pytorch_grad_cam.utils import model_targets

    targets = [model_targets.ClassifierOutputTarget(t) for t in TARGETS]
    methods = {
        "grad_cam": library.GradCAM,
        "grad_cam_plus_plus": library.GradCAMPlusPlus,
        "hires_cam": library.HiResCAM,
        "elementwise_grad_cam": library.GradCAMElementWise,
        "xgrad_cam": library.XGradCAM,
        "layer_cam": library.LayerCAM,
        "score_cam": library.ScoreCAM,
        "ablation_cam": library.AblationCAM,
        "eigen_cam": library.EigenCAM,
        "eigen_grad_cam": library.EigenGradCAM,
        "fem": library.FEM,
    }
    found = {}
    for layer in LAYERS:
        for name, method in methods.items():
            with method(model=model, target_layers=[getattr(model, layer)]) as run:
                found[f"{layer}/{name}"] = run(input_tensor=x, targets=targets)
        rest = [model_targets.ClassifierOutputReST(t) for t in TARGETS]
        other = copy.deepcopy(model)  # it cannot remove its hooks: "Can't detach views in-place"
        run = library.ShapleyCAM(model=other, target_layers=[getattr(other, layer)])
        found[f"{layer}/shapley_cam"] = run(input_tensor=x, targets=rest)
        run.activations_and_grads.release = lambda: None
        finer = library.FinerCAM(model, [getattr(model, layer)])
        rows = [finer(x[i : i + 1], target_idx=t)[0] for i, t in enumerate(TARGETS)]
        found[f"{layer}/finer"] = np.stack(rows)
    both = [getattr(model, layer) for layer in LAYERS]
    with library.LayerCAM(model=model, target_layers=both) as run:
        found["both/layer_cam"] = run(input_tensor=x, targets=targets)
    refine = library.RefineCAM(model, both, base_method=library.GradCAM)
    rows = [refine(x[i : i + 1], targets[i : i + 1])[0] for i in range(len(TARGETS))]
    found["both/refine_cam"] = np.stack(rows)
    return found


def torchcam(model: Network, x: torch.Tensor) -> dict[str, np.ndarray]:
    from torchcam import methods as library

    methods = {
        "grad_cam": (library.GradCAM, {}),
        "grad_cam_plus_plus": (library.GradCAMpp, {}),
        "smooth_grad_cam_plus_plus": (library.SmoothGradCAMpp, {"std": 1e-12}),
        "xgrad_cam": (library.XGradCAM, {}),
        "layer_cam": (library.LayerCAM, {}),
        "score_cam": (library.ScoreCAM, {}),
        "ss_cam": (library.SSCAM, {"std": 1e-12, "num_samples": 2}),
        "is_cam": (library.ISCAM, {}),
        "finer": (library.FinerCAM, {}),
    }
    found = {}
    for layer in LAYERS:
        for name, (method, knobs) in methods.items():
            with method(model, layer, **knobs) as run:
                found[f"{layer}/{name}"] = run(TARGETS, model(x))[0].detach().numpy()
    if model.pooled:
        with library.CAM(model, "layer2", fc_layer="classifier") as run:
            model(x)
            found["layer2/cam"] = run(TARGETS)[0].detach().numpy()
    for name, method in {"layer_cam": library.LayerCAM, "grad_cam": library.GradCAM}.items():
        with method(model, [*LAYERS]) as run:
            found[f"both/{name}"] = run.fuse_cams(run(TARGETS, model(x))).numpy()
    with library.RefineCAM(model, [*LAYERS], base_method=library.GradCAM) as run:
        found["both/refine_cam"] = run(TARGETS, model(x))[0].numpy()
    return found


def captum(model: Network, x: torch.Tensor) -> dict[str, np.ndarray]:
    from captum.attr import GuidedBackprop, LayerAttribution, LayerGradCam

    found = {}
    if model.pooled:  # it changes ReLUs
        guided = GuidedBackprop(model).attribute(x.clone(), target=TARGETS)
        found["guided_gradient"] = guided.permute(0, 2, 3, 1).detach().numpy()
    for layer in LAYERS:
        maps = LayerGradCam(model, getattr(model, layer)).attribute(x, target=TARGETS)
        shown = LayerAttribution.interpolate(maps, x.shape[2:])
        found[f"{layer}/grad_cam"] = shown[:, 0].detach().numpy()
    return found


LIBRARIES = {
    "pytorch_grad_cam": (pytorch_grad_cam, "grad-cam"),
    "torchcam": (torchcam, "torchcam"),
    "captum": (captum, "captum"),
}

if __name__ == "__main__":
    stub_torchvision()
    x = torch.from_numpy(images()).permute(0, 3, 1, 2)
    for name, (run, package) in LIBRARIES.items():
        for network in NETWORKS:
            model = Network(network).eval()
            found = {"logits": model(x).detach().numpy(), **run(model, x)}
            save(name, network, f"{package} {version(package)}, torch {torch.__version__}", found)
