"""TorchScript files with the signatures of the Inception networks, small enough for a test."""

import warnings

import torch
from torch import Tensor, nn

FEATURES, CLASSES = 24, 1008


class Classifier(nn.Module):
    """As the standard file: uint8 images of any size -> features, or probabilities with or without the bias."""

    def __init__(self, features: int = FEATURES):
        super().__init__()
        self.layers = nn.Linear(48, features)
        self.output = nn.Linear(features, CLASSES)

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d((img.to(torch.float32) - 128) / 128, [4, 4]).flatten(1)
        features = self.layers(pooled).relu()
        if return_features:
            return features
        logits = nn.functional.linear(features, self.output.weight) if no_output_bias else self.output(features)
        return logits.softmax(1)


class OtherwiseNamed(Classifier):
    """The same with the classifier under another name."""

    def __init__(self):
        super().__init__()
        self.last = self.output
        self.output = nn.Identity()

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d((img.to(torch.float32) - 128) / 128, [4, 4]).flatten(1)
        features = self.layers(pooled).relu()
        if return_features:
            return features
        return nn.functional.linear(features, self.last.weight).softmax(1)


class FeaturesAlone(nn.Module):
    """As the file without the classifier: images [B, 3, 299, 299] in [-1, 1) -> features; other sizes are refused."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == 299 and x.shape[3] == 299
        return nn.functional.adaptive_avg_pool2d(x, [2, 4]).flatten(1)  # 24 features


def save(module: nn.Module, path) -> None:
    """Filled from a fixed seed, so that a stand-in is always the same."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
