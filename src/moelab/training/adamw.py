"""AdamW without PyTorch's compiler, which takes 1.5 s of processor time to import in each process that trains."""

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, its two methods without the guards that import the compiler: here nothing compiles them."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))

    def is_recorded(self) -> bool:
        """Whether this step is being recorded as a CUDA graph, which PyTorch wants to be known."""
        return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
