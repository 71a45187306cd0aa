"""AdamW without PyTorch's compiler, which takes 1.5 s of processor time to import in each process that trains."""

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, its two methods without the guards that import the compiler: here nothing compiles them."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
