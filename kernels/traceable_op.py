"""Operations that a compiler traces into: it sees their kernels, or ATen's operations, in place of one opaque call."""

from collections.abc import Callable

import torch


def traceable_op(name: str) -> Callable[[Callable], Callable]:
    """Registers a function that changes none of its arguments as a torch operation that compilers take apart.

    Does what `torch.library.triton_op` does for kernels that `dispatch.launch` starts, but without importing Inductor,
    which takes longer than all of torch (1.5 s beside 1.3 s of one core): whoever never compiles does not wait for it.

    Args:
        name: "fastvae::" and the operation's name.
    """

    def register(function: Callable) -> Callable:
        from torch._subclasses.fake_tensor import FakeTensor
        from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode

        def take_apart(mode, op, types, args, kwargs):
            # Subclasses of tensors that the compiler does not know handle the operation themselves.
            if not all(issubclass(t, FakeTensor) or t in (torch.Tensor, FunctionalTensor) for t in types):
                return NotImplemented
            with mode:
                return function(*args, **kwargs)

        op = torch.library.custom_op(name, function, mutates_args=())
        op.register_fake(function)
        op.register_torch_dispatch(FunctionalTensorMode, take_apart)
        return op

    return register
