"""swap_: the report tells what was swapped, what stayed and why."""

import pytest
import torch
from torch import nn

from fastvae.nn import swap_
from tests.nn.swapped_models import compiled, conv, deprecated, hooked, up


def test_a_single_convolution_is_reported():
    report = swap_(conv())
    assert report.swapped == ()
    assert str(report) == (
        "Swapped no convolutions.\n"
        "Left as they were:\n"
        "  (the model itself): cannot be replaced in place; build it as fastvae.nn.ReplicationConv2d"
    )


@pytest.mark.parametrize(
    "to_script", [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 2, 3, 3))], ids=["script", "trace"]
)
def test_a_torchscript_model_is_reported(to_script):
    report = swap_(deprecated(to_script, nn.Sequential(conv())))
    assert report.swapped == ()
    assert "(the model itself): is a TorchScript module" in str(report)


def test_refuses_a_compiled_model():
    for model in (compiled(nn.Sequential(conv())), torch.compile(nn.Sequential(conv()), backend="eager")):
        with pytest.raises(ValueError, match=r"call swap_\(model\) first, then torch.compile\(model\)"):
            swap_(model)


def test_report_reads_well():
    model = nn.ModuleDict(
        {
            "stem": conv(kernel_size=5, padding=2),
            "body": nn.Sequential(up(), conv(), nn.ReLU(), conv()),
            "head": hooked(conv()),
        }
    )
    assert str(swap_(model)) == (
        "Swapped 2 convolutions, 1 along with the x2 upsampling before it:\n"
        "  body.1  (upsample=2)\n"
        "  body.3\n"
        "Left as they were:\n"
        "  stem: has kernel_size=(5, 5), padding=(2, 2); ReplicationConv2d takes kernel_size=3, stride=1, padding=1 or "
        '"same", dilation=1, groups=1 and padding_mode="replicate"\n'
        "  head: has hooks; swap before registering them"
    )
    assert str(swap_(nn.Sequential(conv()))) == "Swapped 1 convolution:\n  0"
    assert str(swap_(nn.Linear(1, 1))) == (
        "Nothing to swap: the model has no torch.nn.Conv2d with replication padding left."
    )
