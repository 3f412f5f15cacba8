"""Who runs an op, and that a compiled op is not an old one."""

import pytest
import torch

from fastvae.kernels import dispatch, feature_loss, provider, replicate_conv2d, replicate_conv2d_with_sums


def test_cpus_run_aten():
    for op in ("replicate_conv2d", "feature_loss", "adam_clip_", "rmsprop_clip_", "batch_norm"):
        assert provider(op, torch.zeros(1)) == "aten"
    assert provider("conv_relu", torch.zeros(1, dtype=torch.float64)) == "aten"


def test_an_unknown_op_is_told_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'feature_loss'"):
        provider("feature_los", torch.zeros(1))


def test_forced_within_a_block():
    with dispatch.force("triton", capability=(8, 6)):
        assert provider("feature_loss", torch.zeros(1)) == "triton"
        assert dispatch.capability(torch.zeros(1)) == (8, 6)
    assert provider("feature_loss", torch.zeros(1)) == "aten"


def test_one_op_forced_leaves_the_others():
    with dispatch.force("triton", op="feature_loss"):
        assert [provider(op, torch.zeros(1)) for op in ("feature_loss", "batch_norm")] == ["triton", "aten"]


@pytest.mark.parametrize(
    ("op", "dtype", "capability", "supported"),
    [
        ("replicate_conv2d", torch.float32, (7, 0), True),
        ("replicate_conv2d", torch.float16, (7, 5), False),
        ("replicate_conv2d", torch.bfloat16, (8, 0), True),
        ("feature_loss", torch.float16, (7, 5), True),
        ("feature_loss", torch.float64, (9, 0), False),
        ("adam_clip_", torch.float32, (6, 1), False),
        ("conv_relu", torch.bfloat16, (7, 5), False),
    ],
    ids=str,
)
def test_by_capability_and_dtype(op, dtype, capability, supported):
    assert dispatch.supports(op, dtype, capability) == supported


def test_what_the_compiler_caches_is_named_by_the_sources():
    """Its cache on disk knows an op that it looks into by name and arguments: one of them must change with the code."""
    seen = []

    def note(graph, _):
        seen.extend(node.args for node in graph.graph.nodes if "fastvae" in str(node.target))
        return graph.forward

    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 3, 3)

    @torch.compile(fullgraph=True, backend=note)
    def every_op(x, weight):
        y = replicate_conv2d(x, weight)
        return feature_loss([y], [x], [1.0]) + replicate_conv2d_with_sums(x, weight)[1].sum()

    every_op(x, weight)
    assert len(seen) == 3 and all(dispatch.SOURCES in arguments for arguments in seen)


def test_only_old_gpus_are_contiguous():
    gpu = torch.device("cuda")
    for capability, layout in (((6, 1), torch.contiguous_format), ((7, 0), torch.channels_last)):
        with dispatch.force("aten", capability=capability):
            assert dispatch.map_format(gpu) == layout
            assert dispatch.map_format(torch.device("cpu")) == torch.channels_last


def test_what_outlives_a_call_is_not_in_the_compilers_own_graphs():
    """torch.compile's CUDA graphs take all memory of a call back."""
    ops = ("adam_clip_", "rmsprop_clip_", "batch_norm_statistics", "batch_norm_sums", "conv_relu")
    for op in ops:
        assert torch.Tag.cudagraph_unsafe in getattr(torch.ops.fastvae, op).default.tags, op
