"""What each GPU of a mesh holds, computes and sends in one step, on paper: the table of docs/scale.md.

python benchmarks/scale.py
"""

from moelab.architecture import Shape, count_flops, load_preset
from moelab.architecture.communication import step_traffic
from moelab.architecture.layout import Layout
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.quantities import format_bytes, format_number

MODEL, SEQ_LEN, SEQUENCES = "qwen3-30b-a3b", 4096, 4
MESHES = ((1, 8), (8, 8), (128, 8))
HEADER = (
    "| GPUs | data x expert | state a GPU | FLOPs a GPU | parameters gathered | gradients scattered | rows exchanged | "
    "FLOPs per byte sent |"
)


def table() -> list[str]:
    """The rows of the table, in Markdown."""
    return [HEADER, "|" + "---|" * 8, *(row(data, expert) for data, expert in MESHES)]


def row(data: int, expert: int) -> str:
    """A mesh: bytes of state (fp32 weights, gradients, AdamW), and FLOPs and bytes of a step of its own tokens."""
    model, gpus = load_preset(MODEL), data * expert
    tokens = SEQUENCES * SEQ_LEN
    layout = Layout(dp=gpus, ep=expert, zero=3)
    memory = device_memory(Shape.of(model), layout, TrainingStep(seq_len=SEQ_LEN, precision="fp32"))
    flops = count_flops(model, SEQ_LEN).train * tokens
    sent = step_traffic(model, data=data, expert=expert, local_tokens=tokens, precision="bf16")
    parts = (sent.gathered, sent.scattered, sent.exchanged)
    return " | ".join(
        (
            f"| {gpus:,}",
            f"{data} x {expert}",
            format_bytes(float(memory.weights + memory.gradients + memory.optimizer)),
            format_number(flops),
            *(format_bytes(float(part)) for part in parts),
            f"{flops / sent.total:,.0f} |",
        )
    )


if __name__ == "__main__":
    print("\n".join(table()))
